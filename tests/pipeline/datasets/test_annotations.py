import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.annotations import CaptionedImage, assign_splits, read_annotations
from pipeline.errors import InputError


def read(folder: Path, document: Any) -> list[CaptionedImage]:
    file = folder / "captions.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_annotations(file)


def images(count: int, split: Any = None) -> list[CaptionedImage]:
    return [CaptionedImage(f"{i}.jpg", ("a word",), split, i) for i in range(count)]


def test_reads_neuraltalk2s_form(tmp_path: Path) -> None:
    document = [
        {"file_path": "a/b.jpg", "captions": ["One.", "Två"], "split": "val", "id": 7},
        {"file_path": "c.png", "captions": ["Three"]},
    ]
    assert read(tmp_path, document) == [
        CaptionedImage("a/b.jpg", ("One.", "Två"), "val", 7),
        CaptionedImage("c.png", ("Three",), None, "c.png"),
    ]


def test_reads_karpathys_form_and_trains_on_restval(tmp_path: Path) -> None:
    sentences = [{"raw": "A dog .", "tokens": ["a", "dog"]}, {"tokens": ["no", "raw"]}]
    document = {
        "images": [
            {"filename": "b.jpg", "filepath": "val2014", "split": "restval", "sentences": sentences, "cocoid": 9},
            {"filename": "c.jpg", "split": "test", "sentences": sentences[:1], "imgid": 4},
        ],
        "dataset": "coco",
    }
    assert read(tmp_path, document) == [
        CaptionedImage("val2014/b.jpg", ("A dog .", "no raw"), "train", 9),
        CaptionedImage("c.jpg", ("A dog .",), "test", 4),
    ]


def test_reads_cocos_form(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 9, "file_name": "b.jpg"}, {"id": "x y"}],
        "annotations": [
            {"image_id": "x y", "caption": "Two"},
            {"image_id": 9, "caption": "One"},
            {"image_id": 9, "caption": "One more"},
        ],
    }
    assert read(tmp_path, document) == [
        CaptionedImage("b.jpg", ("One", "One more"), None, 9),
        CaptionedImage("x y", ("Two",), None, "x y"),
    ]


@pytest.mark.parametrize(
    ("images", "annotations", "said"),
    [
        ([{"id": 1}], [{"image_id": 2, "caption": "x"}], "annotation 0 is of image 2, which it has not"),
        ([{"id": 1}], [{"image_id": 1}], "lacks 'caption'"),
        ([{"file_name": "a"}], [], "lacks 'id'"),
        ([{"id": 1}], {}, "has as annotations '{}', not a list"),
        ([{"id": 1, "file_name": 3}], [], "image 0 has as file_name '3', not a str"),
        ([{"id": [1]}], [], "unhashable"),
        (["x"], [], "image"),
    ],
)
def test_a_broken_coco_form_is_refused(images: Any, annotations: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        read(tmp_path, {"images": images, "annotations": annotations})
    assert said in str(refusal.value)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    assert len(read(tmp_path, "\ufeff" + json.dumps([{"file_path": "a.jpg", "captions": ["x"]}]))) == 1


def test_a_caption_that_is_no_text_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path, [{"file_path": "a.jpg", "captions": [None, "x", 3]}])[0].captions == ("", "x", "")


def test_entries_of_one_image_are_merged(tmp_path: Path) -> None:
    document = [
        {"file_path": path, "captions": [text]} for path, text in [("a.jpg", "1"), ("b.jpg", "2"), ("a.jpg", "3")]
    ]
    assert [(image.file_path, image.captions) for image in read(tmp_path, document)] == [
        ("a.jpg", ("1", "3")),
        ("b.jpg", ("2",)),
    ]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("[{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "holds int"),
        ({"annotations": []}, "holds NoneType"),
        ([], "has no images"),
        (["a.jpg"], "image 0 is 'a.jpg', not a dict"),
        ([{"file_path": "a.jpg", "captions": ["x"]}, {"captions": ["y"]}], "image 1 lacks 'file_path'"),
        ([{"file_path": "a.jpg", "captions": "x"}], "not a list"),
        ({"images": [{"file_name": "coco.jpg", "id": 1}]}, "image 0 lacks 'filename'"),
        ({"images": [{"filename": "a.jpg", "sentences": ["x"]}]}, "not a dict"),
        ([{"file_path": "a.jpg", "captions": ["x"], "split": "dev"}], "'dev'; choose train, val, test"),
        ([{"file_path": "a", "captions": ["x"], "split": s} for s in ("train", "val")], "in two splits, train and val"),
    ],
)
def test_another_form_is_refused_with_the_place(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(InputError, match=r"captions\.json") as refusal:
        read(tmp_path, document)
    assert said in str(refusal.value)


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_annotations(tmp_path / "latin.json")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_annotations(tmp_path)


def test_own_splits_are_kept_without_counts() -> None:
    given = [*images(2, "val"), CaptionedImage("t.jpg", ("x",), "train", 3)]
    splits = assign_splits(given, num_val=0, num_test=0, seed=1)
    assert splits == {"train": given[2:], "val": given[:2], "test": []}


def test_without_any_split_all_are_for_training() -> None:
    assert assign_splits(images(3), num_val=0, num_test=0, seed=1) == {"train": images(3), "val": [], "test": []}


def test_counts_draw_disjoint_splits_that_hold_every_image_once() -> None:
    splits = assign_splits(images(11, "test"), num_val=3, num_test=2, seed=5)
    assert {split: len(members) for split, members in splits.items()} == {"train": 6, "val": 3, "test": 2}
    assert sorted(image.image_id for members in splits.values() for image in members) == list(range(11))


def test_the_seed_alone_decides_the_draw() -> None:
    first, again, other = (assign_splits(images(40), num_val=7, num_test=0, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("given", "num_val", "said"),
    [
        (images(5), 4, "leave none of 5 images"),
        (images(5, "val"), 0, "none of 5 images is for training"),
        ([*images(2), CaptionedImage("s.jpg", ("x",), "train", 3)], 0, "2 of 3 images have no split"),
    ],
)
def test_splits_without_training_images_or_half_given_are_refused(
    given: list[CaptionedImage], num_val: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        assign_splits(given, num_val=num_val, num_test=1 if num_val else 0, seed=1)
