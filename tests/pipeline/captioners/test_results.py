"""What a captioner may return, and what becomes of the rest."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.captioners.protocol import Candidate, Caption, ImageCaptioner
from pipeline.captioners.results import MAX_CHARACTERS, checked, result_columns
from pipeline.errors import CaptionerError, DataError


class Parrot(ImageCaptioner):
    identity = "parrot"
    columns = pa.schema([("count", pa.int8()), ("names", pa.list_(pa.string()))])

    def caption(self, images: Any) -> Any:
        return images


def columns_of(*returned: Any) -> dict[str, list[Any]]:
    results = checked(Parrot(), list(returned), len(returned))
    return {name: column.to_pylist() for name, column in result_columns(Parrot(), results).items()}


def test_captions_become_columns() -> None:
    found = columns_of(
        Caption([Candidate("a dog", -1.5, 3), Candidate("a cat", -2.0, 3)], {"count": 2, "names": ["x", "y"]}),
        Caption((Candidate("un chien"),)),
        Caption([Candidate("", np.float32(-0.25), np.int64(1))], {"count": None}),
    )
    assert found == {
        "caption": ["a dog", "un chien", ""],
        "log_prob": [-1.5, None, -0.25],
        "num_tokens": [3, None, 1],
        "candidates": [
            [{"caption": "a dog", "log_prob": -1.5}, {"caption": "a cat", "log_prob": -2.0}],
            [{"caption": "un chien", "log_prob": None}],
            [{"caption": "", "log_prob": -0.25}],
        ],
        "count": [2, None, None],
        "names": [["x", "y"], None, None],
    }


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, "returned NoneType None, where a list of 2 captions is expected"),
        ("ab", "returned str 'ab', where a list of 2"),
        ([Caption([Candidate("a")])], "returned 1 captions for 2 images"),
        ([Caption([Candidate("a")])] * 3, "returned 3 captions for 2 images"),
        (["a", "b"], "returned str 'a', where a Caption or an exception is expected"),
        ([Caption([])] * 2, "candidates are list []; give one or more"),
        ([Caption("ab")] * 2, "candidates are str 'ab'"),
        ([Caption(["a"])] * 2, "the candidate str 'a', where a Candidate is expected"),
        ([Caption([Candidate(b"a")])] * 2, "text is bytes b'a'; it must be a str"),
        ([Caption([Candidate("a", "-1")])] * 2, "log_prob is str '-1'"),
        ([Caption([Candidate("a", -1.0, 2.5)])] * 2, "num_tokens is float 2.5"),
        ([Caption([Candidate("a")], {"size": 1})] * 2, "the column 'size', which it does not declare"),
        ([Caption([Candidate("a")], [1])] * 2, "columns are list [1]"),
    ],
)
def test_what_is_no_list_of_captions_ends_the_job(returned: Any, expected: str) -> None:
    with pytest.raises(CaptionerError) as raised:
        checked(Parrot(), returned, 2)
    assert str(raised.value).startswith("captioner Parrot returned ") and expected in str(raised.value)


@pytest.mark.parametrize("value", ["many", 300, [1]])
def test_a_value_that_does_not_fit_its_column_ends_the_job(value: Any) -> None:
    with pytest.raises(CaptionerError, match="Parrot returned values for the column 'count' that are no int8"):
        columns_of(Caption([Candidate("a")], {"count": value}))


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (Candidate("a", math.nan), "a log_prob of nan"),
        (Candidate("a", -math.inf, 2), "a log_prob of -inf"),
        (Candidate("a", -1.0, -2), "num_tokens of -2"),
        (Candidate("a" * (MAX_CHARACTERS + 1)), f"a caption of {MAX_CHARACTERS + 1} characters"),
        (Candidate("a \udc80"), "no valid Unicode: 'a \\udc80'"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_value_that_cannot_be_stored_costs_its_image(candidate: Candidate, expected: str, place: int) -> None:
    candidates = [candidate, Candidate("b")] if place == 0 else [Candidate("b"), candidate]
    good, bad = checked(Parrot(), [Caption([Candidate("a", 0.0, 1)]), Caption(candidates)], 2)
    assert isinstance(good, Caption) and isinstance(bad, DataError)
    assert bad.code == "captioner_failed" and bad.message.startswith("Parrot returned ") and expected in bad.message


def test_an_exception_stands_for_its_image() -> None:
    def raised() -> ValueError:
        try:
            raise ValueError("too\n  dark")
        except ValueError as error:
            return error

    (found,) = checked(Parrot(), [raised()], 1)
    assert isinstance(found, DataError) and found.message.startswith("ValueError: too dark (test_results.py:")
    with pytest.raises(CaptionerError, match="no money"):
        checked(Parrot(), [CaptionerError("no money")], 1)
