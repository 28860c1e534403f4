import pytest

from pipeline.datasets.annotations import CaptionedImage
from pipeline.errors import InputError
from pipeline.evaluation.matching import Match, Pairing, pair
from pipeline.evaluation.predictions import Prediction


def image(file_path: str, identity: int | str | None = None) -> CaptionedImage:
    return CaptionedImage(file_path, ("a word",), None, file_path if identity is None else identity)


def paired(ids: list[str], images: list[CaptionedImage], match: Match = "auto") -> Pairing:
    return pair([Prediction(name, f"of {name}") for name in ids], images, match=match)


def names(found: Pairing) -> dict[str, str]:
    return {said.image_id: reference.file_path for said, reference in found.pairs}


@pytest.mark.parametrize(
    ("image_id", "reference"),
    [
        ("7", image("a/x.jpg", 7)),
        ("an id of any kind", image("a/x.jpg", "an id of any kind")),
        ("a/x.jpg", image("a/x.jpg", 1)),
        ("a/x", image("a/x.jpg", 1)),
        ("x.jpg", image("a/x.jpg", 1)),
        ("x", image("a/x.JPG", 1)),
        ("photos/x.jpg", image("a/x.png", 1)),
        ("x.y", image("a/x.y.jpg", 1)),
        ("391895", image("val2014/COCO_val2014_000000391895.jpg", 1)),
        ("7", image("007.jpg", "other")),
        ("ä ö/ü.jpg", image("ü.jpg")),
    ],
)
def test_an_image_is_found_by_id_or_by_what_is_left_of_its_file(image_id: str, reference: CaptionedImage) -> None:
    found = paired([image_id, "stranger"], [image("other.jpg", 99), reference])
    assert names(found) == {image_id: reference.file_path}
    assert [said.image_id for said in found.without_references] == ["stranger"]
    assert [left.file_path for left in found.without_caption] == ["other.jpg"]


@pytest.mark.parametrize("image_id", ["img_7", "x.jpeg2", "y", "7.5"])
def test_what_is_merely_similar_is_no_match(image_id: str) -> None:
    assert paired([image_id], [image("other_7.jpg", 1), image("x.jpg", 2), image("y.z.jpg", 3)]).pairs == []


def test_the_order_is_that_of_the_references() -> None:
    assert list(names(paired(["b", "c", "a"], [image("a.jpg"), image("b.jpg"), image("c.jpg")]))) == ["a", "b", "c"]


def test_the_folder_tells_files_of_one_name_apart() -> None:
    images = [image("a/0.jpg"), image("b/0.jpg")]
    assert names(paired(["b/0.jpg", "a/0"], images)) == {"a/0": "a/0.jpg", "b/0.jpg": "b/0.jpg"}
    with pytest.raises(InputError, match=r"'0.jpg' matches a/0.jpg \(id a/0.jpg\) and b/0.jpg"):
        paired(["0.jpg"], images)


def test_id_and_file_that_contradict_each_other_are_refused_until_told_which_counts() -> None:
    images = [image("1.jpg", 0), image("0.jpg", 1)]
    with pytest.raises(InputError, match="--match file or --match id"):
        paired(["0", "1"], images)
    assert names(paired(["0", "1"], images, "id")) == {"0": "1.jpg", "1": "0.jpg"}
    assert names(paired(["0", "1"], images, "file")) == {"0": "0.jpg", "1": "1.jpg"}


def test_two_captions_of_one_image_are_refused() -> None:
    with pytest.raises(InputError, match=r"'p/x.jpg' and 'q/x.jpg' both match x.jpg"):
        paired(["p/x.jpg", "q/x.jpg"], [image("x.jpg")])


@pytest.mark.parametrize("ids", [["b/0.jpg", "a/0.jpg"], ["a/0.jpg", "b/0.jpg"]])
def test_a_more_exact_name_wins(ids: list[str]) -> None:
    found = paired(ids, [image("a/0.jpg")])
    assert names(found) == {"a/0.jpg": "a/0.jpg"}
    assert [said.image_id for said in found.without_references] == ["b/0.jpg"]


@pytest.mark.parametrize("error_first", [True, False])
def test_a_caption_wins_over_an_error_of_the_same_name(error_first: bool) -> None:
    rows = [Prediction("x", None, "duplicate_key"), Prediction("x", "a dog")]
    found = pair(rows if error_first else rows[::-1], [image("x.jpg")])
    assert [said.caption for said, _ in found.pairs] == ["a dog"]
