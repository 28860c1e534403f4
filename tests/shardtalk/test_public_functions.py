"""`import shardtalk`: whole jobs as functions."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, picture, pictures

import shardtalk
from configs.errors import ConfigError
from pipeline.errors import OutputError

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def captioned(captioner: Path, tmp_path: Path) -> Path:
    """An output of five rows, one of them an error."""
    photos = pictures(tmp_path / "photos", 4)
    (photos / "bad.jpg").write_bytes(b"no image")
    found = shardtalk.caption(photos, tmp_path / "out", captioner=captioner, runner="local")
    assert found["totals"] == {"rows": 5, "captions": 4, "errors": 1, "shards": 5}
    return tmp_path / "out"


def test_the_declared_names_are_there() -> None:
    assert dir(shardtalk) == sorted(shardtalk.__all__)
    assert all(hasattr(shardtalk, name) for name in shardtalk.__all__)


def test_an_output_is_read_in_the_order_of_its_input(captioned: Path) -> None:
    rows = shardtalk.read(captioned, ["image_id", "error_code"]).to_pydict()
    assert rows == {
        "image_id": ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "bad.jpg"],
        "error_code": [None] * 4 + ["not_an_image"],
    }


def test_verify_returns_what_is_wrong(captioned: Path) -> None:
    photos = captioned.parent / "photos"
    assert shardtalk.verify(captioned, photos) == []
    (photos / "0.jpg").unlink()
    (problem,) = shardtalk.verify(captioned, [photos])
    assert problem.endswith("0.jpg: in the output but not in the input")


def test_python_and_the_command_go_on_with_the_same_job(captioned: Path, captioner: Path, shardtalk: Run) -> None:
    options = ["--captioner", captioner, "--runner", "local"]
    code, said = shardtalk("caption", captioned.parent / "photos", "--output", captioned, *options)
    assert (code, "this run 0 rows" in said) == (0, True)


@pytest.mark.parametrize("search", [{"beam_size": 2, "max_tokens": 3}, shardtalk.Search(beam_size=2, max_tokens=3)])
def test_a_section_is_a_mapping_or_a_dataclass(search: Any, captioner: Path, tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", 2)
    found = shardtalk.caption([photos], tmp_path / "out", captioner=captioner, runner="local", search=search)
    assert (found["search"]["beam_size"], found["search"]["max_tokens"]) == (2, 3)


def test_a_job_runs_in_a_thread(captioner: Path, tmp_path: Path) -> None:
    photos, output = pictures(tmp_path / "photos", 2), tmp_path / "out"
    options = {"captioner": captioner, "runner": "local"}
    thread = threading.Thread(target=shardtalk.caption, args=(photos, output), kwargs=options)
    thread.start()
    thread.join()
    assert shardtalk.read(output).num_rows == 2


def test_too_many_errors_are_an_exception(captioner: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(shardtalk.JobError, match="out"):
        shardtalk.caption(tmp_path / "bad.jpg", tmp_path / "out", captioner=captioner, runner="local")


def test_mistakes_are_exceptions_that_name_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no option --beam_size; did you mean --search\.beam_size"):
        shardtalk.caption("photos", tmp_path / "out", beam_size=3)
    with pytest.raises(ConfigError, match="max_error_rate"):
        shardtalk.caption("photos", tmp_path / "out", max_error_rate=2.0)
    for function in (shardtalk.read, shardtalk.verify):
        with pytest.raises(OutputError, match="no output"):
            function(tmp_path)


def test_a_captioner_captions_what_is_in_memory(captioner: Path) -> None:
    loaded = shardtalk.Captioner.load(captioner, device="cpu")
    images = [picture(0), np.asarray(picture(1))]
    assert [caption.text for caption in loaded.caption(images, shardtalk.Search(method="greedy"))] == [
        loaded.caption([image], shardtalk.Search(method="greedy"))[0].text for image in images
    ]
