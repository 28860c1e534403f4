"""Checks what a captioner returned for a batch, and makes table columns of it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from model.captioner.base import Candidate, Caption
from pipeline.captioners.failures import describe
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.errors import CaptionerError, DataError
from pipeline.schema import ROW, ErrorCode

MAX_CHARACTERS = 100_000
"""Maximum length of a caption; a longer one is taken for a fault of the captioner."""

Result = Caption | DataError
"""The caption of an image, or the error in its place."""


def checked(captioner: ImageCaptioner, returned: Any, count: int) -> list[Result]:
    """Returns what a captioner returned for `count` images, values that cannot be stored replaced by errors.

    Raises CaptionerError for another number of results, or results of another type than the protocol asks for.
    """
    if not isinstance(returned, Sequence) or isinstance(returned, str | bytes):
        raise CaptionerError(f"{_says(captioner)} {_shown(returned)}, where a list of {count} captions is expected")
    if len(returned) != count:
        raise CaptionerError(f"{_says(captioner)} {len(returned)} captions for {count} images")
    return [_checked(captioner, one) for one in returned]


def _checked(captioner: ImageCaptioner, result: Any) -> Result:
    if isinstance(result, CaptionerError):
        raise result
    if isinstance(result, Exception):
        return DataError(ErrorCode.CAPTIONER_FAILED, describe(result))
    _check_types(captioner, result)
    problem = next(filter(None, map(_problem, result.candidates)), None)
    return DataError(ErrorCode.CAPTIONER_FAILED, f"{captioner.name} returned {problem}") if problem else result


def _check_types(captioner: ImageCaptioner, result: Any) -> None:
    """Raises CaptionerError unless the result is a caption of the types that the protocol names."""
    says = _says(captioner)
    if not isinstance(result, Caption):
        raise CaptionerError(f"{says} {_shown(result)}, where a Caption or an exception is expected")
    if not isinstance(result.candidates, list | tuple) or not result.candidates:
        raise CaptionerError(f"{says} a Caption whose candidates are {_shown(result.candidates)}; give one or more")
    for one in result.candidates:
        if not isinstance(one, Candidate):
            raise CaptionerError(f"{says} the candidate {_shown(one)}, where a Candidate is expected")
        if not isinstance(one.text, str):
            raise CaptionerError(f"{says} a caption whose text is {_shown(one.text)}; it must be a str")
        if one.log_prob is not None and not isinstance(one.log_prob, numbers.Real):
            raise CaptionerError(
                f"{says} a caption whose log_prob is {_shown(one.log_prob)}; it must be a float or None"
            )
        if one.num_tokens is not None and not isinstance(one.num_tokens, numbers.Integral):
            raise CaptionerError(
                f"{says} a caption whose num_tokens is {_shown(one.num_tokens)}; it must be an int or None"
            )
    if not isinstance(result.columns, Mapping):
        raise CaptionerError(f"{says} a Caption whose columns are {_shown(result.columns)}; they must be a dict")
    if unknown := [name for name in result.columns if name not in captioner.columns.names]:
        raise CaptionerError(f"{says} a value for the column {unknown[0]!r}, which it does not declare in `columns`")


def _problem(one: Candidate) -> str:
    """Returns what is wrong with a candidate's values; "" if nothing."""
    if len(one.text) > MAX_CHARACTERS:
        return f"a caption of {len(one.text)} characters; {MAX_CHARACTERS} is the maximum"
    if any("\ud800" <= character <= "\udfff" for character in one.text):
        return f"a caption that is no valid Unicode: {one.text!r:.80}"
    if one.log_prob is not None and not math.isfinite(one.log_prob):
        return f"a log_prob of {one.log_prob}"
    if one.num_tokens is not None and not 0 <= one.num_tokens < 1 << 31:
        return f"num_tokens of {one.num_tokens}"
    return ""


def result_columns(captioner: ImageCaptioner, results: Sequence[Result | None]) -> dict[str, pa.Array]:
    """Makes the columns of captions; null for images without one.

    Raises CaptionerError for a value that does not fit the type of a column that the captioner declares.
    """
    captions = [result if isinstance(result, Caption) else None for result in results]
    best = [caption and caption.candidates[0] for caption in captions]
    values: dict[str, list[Any]] = {
        "caption": [one and one.text for one in best],
        "log_prob": [one and one.log_prob for one in best],
        "num_tokens": [one and one.num_tokens for one in best],
        "candidates": [
            caption and [{"caption": each.text, "log_prob": each.log_prob} for each in caption.candidates]
            for caption in captions
        ],
    }
    found = {name: pa.array(column, ROW.field(name).type) for name, column in values.items()}
    for field in captioner.columns:
        column = [caption and caption.columns.get(field.name) for caption in captions]
        try:
            found[field.name] = pa.array(column, field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise CaptionerError(
                f"{_says(captioner)} values for the column {field.name!r} that are no {field.type}: {error}"
            ) from error
    return found


def _says(captioner: ImageCaptioner) -> str:
    return f"captioner {captioner.name} returned"


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.80}"
