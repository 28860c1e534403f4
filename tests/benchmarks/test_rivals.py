"""The benchmark beside rivals: scripts that need no further package caption as we do; missed goals are marked."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import pictures
from PIL import Image

from benchmarks.rivals.__main__ import Side, Speeds, measure, print_table
from benchmarks.rivals.clock import steady_images_per_s
from model.captioner import Captioner


@pytest.mark.parametrize(("name", "network"), [("plain_loop", "ours"), ("data_loader", "eager")])
def test_a_rival_gives_our_captions(name: str, network: str, captioner: Path, tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", 40)
    speeds = Speeds()
    measure(Side(name, name, network), photos, captioner, tmp_path, speeds)
    ours = Captioner.load(captioner)
    expected = {path.stem: ours.caption([Image.open(path)])[0].text for path in photos.iterdir()}
    assert speeds.captions == expected
    assert len(set(expected.values())) > 1


def test_what_is_missed_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    ours = Speeds(whole=[30.0, 10.0, 20.0], steady=[60.0], captions={"a": "a dog", "b": "a cat"})
    theirs = Speeds(whole=[20.0], steady=[30.0], captions={"a": "a dog", "b": "a car"})
    sides = {Side("local", "ours", "local"): ours, Side("theirs", "theirs", "eager", "local"): theirs}
    assert not print_table(sides)
    assert capsys.readouterr().out.splitlines()[-1] == "| theirs | eager | 20.0 | 30.0 | 1.00 MISSED | 2.00 | ≥ 2 | 1 |"


def test_the_steady_state_begins_after_a_quarter_of_the_images(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("100 1\n107 3\n104 2\n103 2\n")  # in the order in which processes write
    assert steady_images_per_s(clock) == 5 / 4
