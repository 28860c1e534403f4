"""Captioners of a user's own: the same outputs, errors and proofs as with Shardtalk's networks."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import FORMATS, Run, codes, jpeg, pictures, rows_of
from own_captioners import CaptionBy
from PIL import Image

from cluster.connect import Resources

COLUMNS = ("caption", "log_prob", "num_tokens", "candidates", "mean", "sizes", "note", "error_code")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photos, of which 0.jpg and 5.jpg are 33 pixels wide and the others wider, and a text."""
    folder = pictures(tmp_path / "in", 7)
    (folder / "bad.jpg").write_bytes(b"not an image")
    return folder


def expected_size(kind: str, number: int) -> tuple[int, int]:
    width, height = Image.open(io.BytesIO(jpeg(number))).size
    return {"rgb": (round(width * 20 / height), 20), "encoded": (width, height), "pixels": (8, 8)}[kind]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["rgb", "encoded", "pixels"])
def test_rows_hold_its_captions_and_columns(
    kind: str, form: str, photos: Path, caption_by: CaptionBy, shardtalk: Run
) -> None:
    code, said = caption_by(photos, "--format", form, kind=kind)
    assert code == 0, said
    *rows, bad = rows_of(photos.parent / "out")
    assert bad["error_code"] == "not_an_image" and {bad[name] for name in COLUMNS if name != "error_code"} == {None}
    for number, row in enumerate(rows):
        size = expected_size(kind, number)
        assert row["caption"].startswith(f"{size[0]} by {size[1]}, ") and row["sizes"] == list(size)
        assert (row["log_prob"], row["num_tokens"], row["note"]) == (-0.5, 2, None if kind == "rgb" else kind)
        assert row["candidates"][1] == {"caption": "another", "log_prob": None}
        assert (row["width"], row["height"]) == expected_size("encoded", number)
    code, said = shardtalk("verify", photos.parent / "out", photos)
    assert code == 0 and "7 captions, 1 errors" in said
    assert shardtalk("gallery", photos.parent / "out")[0] == 0


@pytest.mark.parametrize("kind", ["rgb", "encoded", "pixels"])
def test_ray_gives_the_same_rows(
    kind: str, photos: Path, caption_by: CaptionBy, local_ray: Resources, tmp_path: Path
) -> None:
    """Its module is in a folder that the workers, which run already, do not import from; so is the one beside it."""
    assert caption_by(photos, kind=kind, output=tmp_path / "local")[0] == 0
    code, said = caption_by(photos, "--runner", "ray", "--ray.max_actors", 1, kind=kind)
    assert code == 0, said
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "local")


def test_an_output_is_continued_by_the_same_identity_only(photos: Path, caption_by: CaptionBy, tmp_path: Path) -> None:
    assert caption_by(photos, prompt="first ")[0] == 0
    (photos / "more.jpg").write_bytes(jpeg(9))
    code, said = caption_by(photos, prompt="second ")
    assert code == 2 and "captioner.identity was 'own rgb first ' and is 'own rgb second '" in said
    assert len(rows_of(tmp_path / "out")) == 8
    assert caption_by(photos, prompt="first ")[0] == 0
    assert len(rows_of(tmp_path / "out")) == 9


@pytest.mark.parametrize("wrong", ["batch", "alone"])
def test_an_image_at_which_it_fails_is_a_row_and_can_be_tried_again(
    wrong: str, photos: Path, caption_by: CaptionBy, shardtalk: Run, tmp_path: Path
) -> None:
    code, said = caption_by(photos, kind="encoded", wrong=wrong)
    assert code == 0, said
    failed = {"0.jpg": "captioner_failed", "5.jpg": "captioner_failed", "bad.jpg": "not_an_image"}
    assert {name: found for name, found in codes(tmp_path / "out").items() if found} == failed
    first = rows_of(tmp_path / "out")[0]
    assert first["error_message"].startswith("KeyError: 'narrow'") and (first["width"], first["mean"]) == (33, None)
    assert shardtalk("verify", tmp_path / "out", photos)[0] == 0
    code, said = caption_by(photos, "--retry_errors", kind="encoded")
    assert code == 0 and "2 rows with errors are tried again" in said
    assert {name for name, found in codes(tmp_path / "out").items() if found} == {"bad.jpg"}


def test_where_every_image_fails_the_job_ends_with_the_first_failure(
    caption_by: CaptionBy, tmp_path: Path, local_ray: Resources
) -> None:
    photos = pictures(tmp_path / "in", 40)
    for runner in ("local", "ray"):
        code, said = caption_by(photos, "--runner", runner, output=tmp_path / runner, wrong="every")
        assert code == 2 and "Own failed at each of its first 8 images; the first: ValueError: never works" in said
        assert "Traceback" not in said and rows_of(tmp_path / runner) == []


def test_a_job_that_may_end_with_errors_only_is_not_ended(caption_by: CaptionBy, tmp_path: Path) -> None:
    code, said = caption_by(pictures(tmp_path / "in", 12), "--max_error_rate", 1, wrong="every")
    assert code == 0 and set(codes(tmp_path / "out").values()) == {"captioner_failed"}, said


def test_the_captioner_may_end_the_job(photos: Path, caption_by: CaptionBy) -> None:
    code, said = caption_by(photos, wrong="stop")
    assert code == 2 and said.endswith("error: the account is empty\n")


@pytest.mark.parametrize(
    ("factory", "options", "expected"),
    [
        ("Missing", {}, "has no Missing"),
        ("nothing", {}, "made a str; it must be an ImageCaptioner"),
        ("broken", {}, "RuntimeError: no licence"),
        ("make", {"size": 3}, "cannot be made with (size=3): TypeError"),
        ("OWN.x", {}, "has no OWN.x"),
        ("__name__", {}, "is a str; give a class or a function"),
    ],
)
def test_a_factory_that_makes_none_is_a_mistake(
    factory: str, options: dict[str, Any], expected: str, photos: Path, caption_by: CaptionBy
) -> None:
    code, said = caption_by(photos, factory=factory, **options)
    assert code == 2 and expected in said and said.count("\n") == 1, said


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--captioner", "no_such_module:Own"), "there is no module no_such_module in "),
        (("--captioner", "flickr8k-mobilenet-v2", "--captioner_args", "{a: 1}"), "captioner_args are for other"),
        (("--captioner", "flickr8k-mobilenet-v2", "--captioner_args", "[1]"), "must be YAML of names and values"),
        (("--captioner", "x", "--captioner_args", "none.yaml"), "captioner_args cannot be read"),
    ],
)
def test_mistakes_are_a_line(
    arguments: tuple[str, ...], expected: str, photos: Path, shardtalk: Run, tmp_path: Path
) -> None:
    code, said = shardtalk("caption", photos, "--output", tmp_path / "out", "--runner", "local", *arguments)
    assert code == 2 and expected in said and said.count("\n") == 1, said


@pytest.mark.parametrize(
    "arguments", [("--search.beam_size", 3), ("--dtype", "float32"), ("--captioner", "flickr8k-mobilenet-v2")]
)
def test_options_of_networks_are_not_ignored(
    arguments: tuple[object, ...], photos: Path, caption_by: CaptionBy
) -> None:
    code, said = caption_by(photos, *arguments)
    assert code == 2 and "Shardtalk's own networks" in said and said.count("\n") == 1, said


def test_an_installed_package_may_add_one(
    own: str, photos: Path, shardtalk: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "own-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: own\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[shardtalk.captioners]\nmine = {own}:Own\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    listed = json.loads(shardtalk("captioners", "--json")[1])
    assert listed[-1] == {"name": "mine", "factory": f"{own}:Own", "package": "own 1.5"}
    arguments = tmp_path / "arguments.yaml"
    arguments.write_text("prompt: 'this is '\n")
    usual = ("--output", tmp_path / "out", "--runner", "local")
    assert shardtalk("caption", photos, *usual, "--captioner", "mine", "--captioner_args", arguments)[0] == 0
    assert rows_of(tmp_path / "out")[0]["caption"].startswith("this is ")


def test_it_is_described(own: str, shardtalk: Run) -> None:
    code, said = shardtalk("captioners", f"{own}:Own")
    assert (
        code == 0
        and said.startswith("Own\n")
        and "identity       own rgb" in said
        and "mean float32, sizes int32, note string" in said
    )


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("runner", "wrong", "expected"),
    [
        ("local", "hang", ("captioner_failed", "TimeoutError: no captions within 5 s")),
        ("local", "crash", ("worker_died", "the process of the captioner ended with code -6")),
        ("ray", "hang", ("captioner_failed", "TimeoutError: no captions within 5 s")),
    ],
)
def test_an_image_that_ends_or_stops_its_process_is_found(
    runner: str, wrong: str, expected: tuple[str, str], caption_by: CaptionBy, tmp_path: Path
) -> None:
    photos = pictures(tmp_path / "in", 3)
    usual = ("--runner", runner, "--captioner_timeout_s", 5, "--batch_size", 2, "--ray.max_actors", 1)
    code, said = caption_by(photos, *usual, kind="encoded", wrong=wrong)
    assert code == 0, said
    first, *others = rows_of(tmp_path / "out")
    assert (first["image_id"], first["error_code"], first["error_message"]) == ("0.jpg", *expected)
    assert [row["caption"][:9] for row in others] == ["34 by 47,", "35 by 47,"]
