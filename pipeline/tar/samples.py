"""Groups the members of a tar into samples. docs/inputs.md describes the rules for users.

Adjacent members with the same key form a sample. The key is WebDataset's: the name up to the first dot of its last
part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from pipeline.errors import DataError
from pipeline.filenames import EXTENSIONS, printable
from pipeline.shards import extension_of
from pipeline.tar.elements import Element, Gap, Member, read_member
from pipeline.tar.walk import walk

ReadAhead = Callable[[Member, int], bytes | None]
"""Reads a member while the walk passes it, or returns None; receives the number of bytes buffered for its sample."""


@dataclass(slots=True)
class Sample:
    """Adjacent members that share a key."""

    key: str
    start: int
    """Byte offset of its first header."""
    stop: int = 0
    """Byte offset behind its last member."""
    files: dict[str, bytes | None] = field(default_factory=dict)
    """Contents by lower-case extension without the first dot ("" if there is none); None if not read ahead."""
    members: dict[str, Member] = field(default_factory=dict)
    """Members by the same extensions."""
    buffered_bytes: int = 0
    """Total size of the files that were read ahead."""
    hidden: int = 0
    """Number of hidden macOS files among its members."""


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


def read_samples(
    file: BinaryIO, *, size: int, offset: int = 0, wanted: Callable[[str], bool] = lambda extension: True
) -> Iterator[Sample]:
    """Yields the samples of an undamaged tar, such as one that `shardtalk prepare` wrote.

    Args:
        file: the tar.
        size: size of the whole tar in bytes.
        offset: 0, or the `stop` of a sample.
        wanted: selects the extensions to read; the bytes of other members are skipped.

    Raises DataError for damage, after all complete samples before it.
    """

    def read_ahead(member: Member, buffered_bytes: int) -> bytes | None:
        return read_member(file, member) if wanted(split_name(member.name)[1]) else None

    for found in group_samples(walk(file, size=size, offset=offset), read_ahead):
        if isinstance(found, Gap):
            raise DataError(found.code, found.message)
        if isinstance(found, Sample):
            yield found


def group_samples(
    elements: Iterable[Element], read_ahead: ReadAhead = lambda member, buffered_bytes: None
) -> Iterator[Sample | Gap | Member]:
    """Yields samples, damaged places, and hidden files that lie in no sample. Holds one sample at a time."""
    sample: Sample | None = None
    for element in elements:
        if type(element) is not Member:
            if sample:
                yield sample
                sample = None
            if type(element) is Gap:
                yield element
        elif _is_hidden(element.name):
            if sample:
                sample.hidden += 1
            else:
                yield element
        elif element.kind != "other":
            key, extension = split_name(element.name)
            if sample and (key != sample.key or extension in sample.files):
                yield sample
                sample = None
            sample = sample or Sample(key, element.start)
            data = read_ahead(element, sample.buffered_bytes)
            sample.files[extension], sample.members[extension] = data, element
            sample.buffered_bytes, sample.stop = sample.buffered_bytes + len(data or b""), element.stop
    if sample:
        yield sample


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


def split_name(name: str) -> tuple[str, str]:
    """Splits a name by WebDataset's rule: "a/b.seg.png" into "a/b" and "seg.png". Leading dots belong to the key."""
    folder, slash, base = name.rpartition("/")
    leading = len(base) - len(base.lstrip("."))
    stem, _, extension = base[leading:].partition(".")
    return printable(f"{folder}{slash}{base[:leading]}{stem}"), extension.lower()


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


def _is_hidden(name: str) -> bool:
    """Returns whether a file is macOS metadata: AppleDouble, folder settings, or inside `__MACOSX`."""
    folder, _, base = name.rpartition("/")
    return base.startswith("._") or base == ".DS_Store" or ("__MACOSX" in folder and "__MACOSX" in folder.split("/"))
