"""What is committed: the records of an output folder, and what is left to do.

A commit record is a small JSON file under `_commits/` that names one data file, the rows in it, and hashes of both.
Data without a record is garbage. So is a record of a driver that had lost the output (`pipeline.output.epochs`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field

import pyarrow as pa

from pipeline.errors import OutputError
from pipeline.filenames import printable
from pipeline.output import epochs
from pipeline.shards import Shard, Span
from pipeline.storage.filesystems import CONNECTIONS
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map

COMMITS = "_commits"
SUFFIX = ".commit"  # readers of JSON folders must not take records for data


@dataclass(frozen=True, slots=True, order=True)
class RowRange:
    """Rows of one shard, without a gap."""

    shard: str
    """`Shard.id`."""
    start: int
    """Index of its first row."""
    stop: int
    """Index after its last row."""
    next_offset: int
    """Byte offset in the shard at which row `stop` begins."""
    last: bool
    """The shard has no row `stop`."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Rows that stand for what could not be read of a shard that holds many images."""

    rows: int
    reason: str
    """Code and message of the first."""
    bytes: int = 0
    """Of the shard that they cover; 0 where that is not known, as in Parquet files."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One data file and what is in it."""

    file: str
    rows: int
    errors: dict[str, int]
    """Rows without a caption, by error code."""
    file_sha256: str
    keys_sha256: str
    """Of its rows' shard, index and image_id (`hash_keys`)."""
    row_ranges: list[RowRange]
    paths: dict[str, str]
    """Path of each shard by its id, as text."""
    committed: float
    """When, in seconds since 1970 by the driver's clock. For people: nothing depends on it."""
    replaces: str = ""
    """File of a commit that does not count any more, now that this one does."""
    epoch: str = ""
    """Of the driver that wrote it: `pipeline.output.epochs.Epoch.id`."""
    damage: dict[str, Damage] = field(default_factory=dict)
    """By shard id."""

    @property
    def record(self) -> str:
        """Name of its record in the output."""
        return f"{COMMITS}/{self.file.rpartition('.')[0]}{SUFFIX}"

    def encode(self) -> bytes:
        """The record's file."""
        fields = asdict(self)
        del fields["row_ranges"]
        fields["intervals"] = [astuple(row_range) for row_range in self.row_ranges]
        return json.dumps(fields, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> Commit:
        """Reads a record's file. Raises ValueError, KeyError or TypeError where it is none."""
        fields = json.loads(data)
        row_ranges = [RowRange(*values) for values in fields["intervals"]]
        del fields["intervals"]
        damage = {shard: Damage(**found) for shard, found in dict(fields.get("damage", {})).items()}
        commit = cls(**fields | {"row_ranges": row_ranges, "damage": damage})
        if {row_range.shard for row_range in commit.row_ranges} != commit.paths.keys():
            raise ValueError("its intervals and paths are not of the same shards")
        return commit


@dataclass
class CommitLog:
    """All commit records of an output."""

    commits: list[Commit] = field(default_factory=list)
    row_ranges: dict[str, list[RowRange]] = field(default_factory=dict)
    """Of each shard, by its id."""
    shard_ids: dict[str, str] = field(default_factory=dict)
    """Shard id by path."""
    superseded: list[Commit] = field(default_factory=list)
    """Commits that others replace: what a crash left between the two."""
    stale: list[Commit] = field(default_factory=list)
    """Commits that do not count, of drivers that had lost the output."""

    @classmethod
    def load(cls, folder: Folder) -> CommitLog:
        """Reads the records. Raises OutputError for one that is torn."""
        snapshot = epochs.read_snapshot(folder)
        names = [f"{COMMITS}/{name}" for name in folder.names(COMMITS) if name.endswith(SUFFIX) and name[0] != "."]
        commits = []
        contents = prefetch_map(folder.read, names, threads=CONNECTIONS, depth=2 * CONNECTIONS)
        for name, content in zip(names, contents, strict=True):
            try:
                commits.append(Commit.decode(content))
            except (ValueError, KeyError, TypeError) as error:
                raise OutputError(
                    f"{folder.url}/{name} is damaged ({error}); remove it, and its rows are redone"
                ) from error
        stale = [commit for commit in commits if snapshot and not snapshot.includes(commit.epoch, commit.file)]
        counting = [commit for commit in commits if commit not in stale] if stale else commits
        superseded_files = {commit.replaces for commit in counting}
        commit_log = cls(superseded=[commit for commit in counting if commit.file in superseded_files], stale=stale)
        for commit in counting:
            if commit.file not in superseded_files:
                commit_log.add(commit)
        return commit_log

    def add(self, commit: Commit) -> None:
        """Counts a commit in."""
        self.commits.append(commit)
        for row_range in commit.row_ranges:
            self.row_ranges.setdefault(row_range.shard, []).append(row_range)
        self.shard_ids.update({path: shard for shard, path in commit.paths.items()})

    def remove(self, commit: Commit) -> None:
        """Counts a commit out."""
        rest = [other for other in self.commits if other is not commit]
        self.commits, self.row_ranges, self.shard_ids = [], {}, {}
        for other in rest:
            self.add(other)

    def remaining_work(self, shards: Iterable[Shard]) -> Iterator[Span]:
        """What is not committed, in order. Raises OutputError for a shard that has changed since it was captioned."""
        for shard in shards:
            shard_id, path = shard.id, printable(shard.path)
            if self.shard_ids.get(path, shard_id) != shard_id:
                raise OutputError(
                    f"{path} has changed since it was captioned; give another output,"
                    " or --retry_errors if it was an error then"
                )
            yield from missing_ranges(shard, self.row_ranges.get(shard_id, ()))

    def damage(self) -> dict[str, Damage]:
        """Of the shards of many images, by id."""
        found: dict[str, Damage] = {}
        for commit in self.commits:
            for shard, more in commit.damage.items():
                before = found.get(shard, Damage(0, more.reason))
                found[shard] = Damage(before.rows + more.rows, before.reason, before.bytes + more.bytes)
        return found

    def lost_share(self, shard: str, damage: Damage, size: int) -> float:
        """Share of a shard that could not be read: 1 where no image could, else by its bytes, or by its rows.

        Args:
            shard: its id.
            damage: all there is of it.
            size: of the shard, in bytes.
        """
        rows = sum(row_range.stop - row_range.start for row_range in self.row_ranges[shard])
        if damage.rows >= rows:
            return 1.0
        return damage.bytes / size if damage.bytes and size > 0 else damage.rows / rows

    @property
    def rows(self) -> int:
        """Committed rows."""
        return sum(commit.rows for commit in self.commits)

    @property
    def errors(self) -> dict[str, int]:
        """Committed rows without a caption, by error code."""
        counts: dict[str, int] = {}
        for commit in self.commits:
            for code, count in commit.errors.items():
                counts[code] = counts.get(code, 0) + count
        return dict(sorted(counts.items()))


def missing_ranges(shard: Shard, row_ranges: Sequence[RowRange]) -> Iterator[Span]:
    """What the intervals of a shard leave out."""
    index, offset = 0, 0
    for row_range in sorted(row_ranges):
        if row_range.start > index:
            yield Span(shard, index, offset, row_range.start)
        index, offset = max((index, offset), (row_range.stop, row_range.next_offset))
        if row_range.last:
            return
    yield Span(shard, index, offset)


def find_row_ranges(rows: pa.Table) -> list[RowRange]:
    """The intervals that rows (with the columns of `schema.POSITION`) make up."""
    columns = [rows[name].to_pylist() for name in ("shard_id", "index", "next_offset", "last")]
    row_ranges: list[RowRange] = []
    for shard, index, next_offset, last in sorted(zip(*columns, strict=True)):
        previous = row_ranges[-1] if row_ranges else None
        if previous and previous.shard == shard and previous.stop == index:
            row_ranges[-1] = RowRange(shard, previous.start, index + 1, next_offset, last)
        else:
            row_ranges.append(RowRange(shard, index, index + 1, next_offset, last))
    return row_ranges


def hash_keys(rows: pa.Table) -> str:
    """SHA-256 over shard, index and image_id of the rows, in any order, in hexadecimal."""
    keys = zip(*(rows[name].to_pylist() for name in ("shard", "index", "image_id")), strict=True)
    digest = hashlib.sha256()
    for shard, index, image_id in sorted(keys):
        digest.update(json.dumps([shard, index, image_id]).encode())
    return digest.hexdigest()
