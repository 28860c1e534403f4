"""The rows that the samples of a tar make, and their image_ids. docs/inputs.md describes the rules for users.

- Each image of a sample is a row. Its siblings are the other members of the sample.
- A single image in a sample has the key as its image_id. Of several, each has its name without the last extension if
  that is unique in the sample, else its name. If an earlier row of the tar has that id, the next more specific one is
  used, and finally the name followed by `#2`, `#3`, ….
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.filenames import EXTENSIONS, printable
from pipeline.shards import extension_of
from pipeline.tar.elements import Gap, Member
from pipeline.tar.samples import Sample


@dataclass(slots=True)
class Row:
    """A row of a tar: one image of a sample, or a damaged place."""

    index: int
    first: int
    """Index of the first row of its sample."""
    image_id: str
    start: int
    """Byte offset from which it can be read: the beginning of its sample."""
    next_offset: int
    """`start` of the next row, or the offset of an element before that."""
    at: int
    """Byte offset of the image's own header."""
    sample: Sample | None
    extension: str
    """Extension of the image in its sample."""
    gap: Gap | None
    """The damaged place; None for an image."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Number of ignored members up to the next sample (neither images nor siblings), by kind, in the last row of a
    sample. Row 0 includes those before it."""


class IdSource(Protocol):
    """Assigns each row an image_id that is unique in the tar."""

    def choose(self, index: int, candidates: Sequence[str]) -> str: ...  # noqa: D102


class IdAssigner:
    """Chooses the first candidate that no earlier row has, or numbers the last one. Must see all rows from row 0 on."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        self.renamed: dict[int, str] = {}
        """Chosen ids that are not their first candidate, by row index."""

    def choose(self, index: int, candidates: Sequence[str]) -> str:
        """As `IdSource.choose`."""
        chosen = next((candidate for candidate in candidates if candidate not in self._taken), None)
        while chosen is None or chosen in self._taken:
            number = self._numbers[candidates[-1]] = self._numbers.get(candidates[-1], 1) + 1
            chosen = f"{candidates[-1]}#{number}"
        self._taken.add(chosen)
        if chosen != candidates[0]:
            self.renamed[index] = chosen
        return chosen


class RecordedIds:
    """Returns the ids that an `IdAssigner` chose before, for a reader that begins in the middle of a tar."""

    def __init__(self, renamed: Mapping[int, str]) -> None:
        self._renamed = renamed

    def choose(self, index: int, candidates: Sequence[str]) -> str:
        """As `IdSource.choose`."""
        return self._renamed.get(index, candidates[0])


def sample_rows(
    found: Iterable[Sample | Gap | Member],
    *,
    is_image: Callable[[str], bool],
    name: str,
    ids: IdSource,
    index: int = 0,
    ignored: Counter[str] | None = None,
) -> Iterator[Row]:
    """Yields the rows of samples and damaged places.

    Args:
        found: the items of `group_samples`, from the beginning of the tar or the `start` of a row.
        is_image: decides by a member's name whether it is an image.
        name: file name of the tar, for the rows of damaged places.
        ids: assigns the image_ids.
        index: index of the first row.
        ignored: counts the ignored members before row 0, which are all if there are no rows.
    """
    leading, last, is_first = Counter[str]() if ignored is None else ignored, None, index == 0
    for item in found:
        fresh = _of_gap(item, index, name, ids) if isinstance(item, Gap) else _of_sample(item, index, is_image, ids)
        if fresh:
            fresh[0].ignored.update(leading)
            leading.clear()
        for row in fresh:
            if last:
                yield last
            last, index = row, index + 1
        passed = _ignored(item, is_sibling=bool(fresh))
        if last:
            last.ignored.update(passed)
        elif is_first:
            leading.update(passed)
    if last:
        yield last


def _ignored(item: Sample | Gap | Member, *, is_sibling: bool) -> Counter[str]:
    if type(item) is Member:
        return Counter(["hidden"])
    if type(item) is not Sample:
        return Counter()
    kinds = Counter({"hidden": item.hidden} if item.hidden else {})
    return kinds if is_sibling else kinds + Counter(ignored_kind(member.name) for member in item.members.values())


def _of_gap(gap: Gap, index: int, name: str, ids: IdSource) -> list[Row]:
    image_id = ids.choose(index, [f"{name}@{gap.start}"])
    return [Row(index, index, image_id, gap.start, gap.stop, gap.start, None, "", gap)]


def _of_sample(item: Sample | Member, index: int, is_image: Callable[[str], bool], ids: IdSource) -> list[Row]:
    if type(item) is not Sample:
        return []
    images = [(extension, member) for extension, member in item.members.items() if is_image(member.name)]
    stems = Counter(_stem(member.name) for _, member in images) if len(images) > 1 else {}
    found = []
    for number, (extension, member) in enumerate(images):
        image_id = ids.choose(index + number, _candidates(item.key, member.name, stems))
        next_offset = item.stop if number == len(images) - 1 else item.start
        row = Row(index + number, index, image_id, item.start, next_offset, member.start, item, extension, None)
        found.append(row)
    return found


def _candidates(key: str, name: str, stems: Mapping[str, int]) -> list[str]:
    """Returns the possible ids of an image, from the least to the most specific.

    Args:
        stems: number of images in the sample by name without last extension; empty for a single image.
    """
    stem = _stem(name)
    is_telling = stems.get(stem, 1) == 1
    return [*([] if stems else [key]), *([printable(stem)] if is_telling else []), printable(name)]


def _stem(name: str) -> str:
    """Returns a name without its last extension; a name that is only an extension is unchanged."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.rpartition('.')[0] or base}"


def image_matcher(image_members: Iterable[str]) -> Callable[[str], bool]:
    """Returns a test whether a member's name is that of an image: by `image_members`, or if empty by its extension."""
    named = tuple(member.lower() for member in image_members)
    if not named:
        return lambda name: extension_of(name) in EXTENSIONS
    endings = tuple(f".{member}" for member in named)
    return lambda name: (base := name.rpartition("/")[2].lower().rstrip(" .")) in named or base.endswith(endings)


def ignored_kind(name: str) -> str:
    """Returns the kind under which an ignored file is counted."""
    extension = extension_of(name)
    return printable(f".{extension}") if extension else "no extension"
