import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.results.review import Review, read_review

KEPT = {"shard": "/a.tar", "index": 3, "image_id": "k3", "reviewed_caption": "a dog", "decision": "keep"}
ROW = {"shard": "/a.tar", "index": 3, "image_id": "k3", "caption": "a dog", "log_prob": -2.5, "width": 40}


def written(folder: Path, *decisions: dict[str, Any], **more: Any) -> str:
    path = folder / "review.json"
    review = {"format": "shardtalk-review", "version": 1, "output": "out", "decisions": decisions}
    path.write_text(json.dumps(review | more))
    return str(path)


def review(folder: Path, *decisions: dict[str, Any]) -> Review:
    return read_review(written(folder, *decisions))


def applied(found: Review, *rows: dict[str, Any]) -> list[dict[str, Any] | None]:
    return [decision.apply(row) if (decision := found.of(row)) else row for row in rows]


def test_a_rejected_row_is_dropped_and_a_kept_one_stays(tmp_path: Path) -> None:
    found = review(tmp_path, KEPT, KEPT | {"index": 4, "image_id": "k4", "decision": "reject"})
    rows = [ROW, ROW | {"index": 4, "image_id": "k4"}, ROW | {"index": 5, "image_id": "k5"}]
    assert applied(found, *rows) == [rows[0], None, rows[2]]
    assert found.applied == {"keep": 1, "reject": 1}


def test_an_edited_caption_replaces_the_captioners_and_its_scores(tmp_path: Path) -> None:
    found = review(tmp_path, KEPT | {"caption": "a wolf"})
    assert applied(found, ROW) == [ROW | {"caption": "a wolf", "log_prob": None}]
    assert found.applied == {"edit": 1}


@pytest.mark.parametrize("other", [{"shard": "/b.tar"}, {"index": 2}, {"image_id": "k2"}], ids=str)
def test_a_decision_is_on_one_row(tmp_path: Path, other: dict[str, Any]) -> None:
    found = review(tmp_path, KEPT | {"decision": "reject"})
    assert found.of(ROW | other) is None
    assert not found.applied


@pytest.mark.parametrize("caption", ["a cat", None])
def test_a_decision_on_another_caption_does_not_count(tmp_path: Path, caption: str | None) -> None:
    found = review(tmp_path, KEPT | {"decision": "reject"})
    assert found.of(ROW | {"caption": caption}) is None
    assert found.applied == {"outdated": 1}


def test_an_error_row_may_be_rejected(tmp_path: Path) -> None:
    found = review(tmp_path, KEPT | {"reviewed_caption": None, "decision": "reject"})
    assert applied(found, ROW | {"caption": None}) == [None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "csv"}, "format is 'csv'"),
        ({"version": 2}, "version 2; this Shardtalk reads version 1"),
        ({"version": "1"}, "version is '1'"),
        ({"decisions": [KEPT, KEPT | {"decision": "maybe"}]}, r"decisions\[1\].decision is 'maybe'"),
        ({"decisions": [KEPT | {"index": True}]}, r"decisions\[0\].index is True"),
        ({"decisions": [{"shard": "a"}]}, r"decisions\[0\].index is missing"),
        ({"decisions": [KEPT | {"caption": "\ud800"}]}, "Invalid JSON"),
        ({"decisions": [KEPT | {"caption": " "}]}, r"decisions\[0\] has a caption that is empty"),
        ({"decisions": [KEPT | {"reviewed_caption": None, "caption": "x"}]}, "for a row with an error"),
        ({"decisions": [KEPT, KEPT]}, r"decisions\[1\] is the second one on k3 of /a.tar"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_review(written(tmp_path, **changes))


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_review(str(tmp_path / "none.json"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@settings(deadline=None, max_examples=50)
@given(data=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_other_contents_are_a_mistake(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "other.json"
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_review(str(path))
