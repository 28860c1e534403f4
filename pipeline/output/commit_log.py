"""The commit log of an output folder: which rows are committed, and which remain to be captioned.

A commit record is a small JSON file under `_commits/` that names one part, the rows in it, and hashes of both. Each
partition of an output has such a folder of its own.
A part without a record is garbage. So is a record of a driver that had lost the output (`pipeline.output.epochs`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import partial

from configs.partition import Partition
from pipeline.errors import OutputError
from pipeline.filenames import printable
from pipeline.output import epochs
from pipeline.output.epochs import EpochSnapshot
from pipeline.output.layout import control_path, partition_of
from pipeline.shards import Shard, Span
from pipeline.storage.filesystems import CONNECTIONS
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map

COMMITS = "_commits"
PARTITIONS_AT_ONCE = 8
"""Number of partitions whose records are read at the same time."""
SUFFIX = ".commit"  # readers of JSON folders must not take records for data


@dataclass(frozen=True, slots=True, order=True)
class RowRange:
    """Consecutive rows of one shard."""

    shard: str
    """`Shard.id`."""
    start: int
    """Index of its first row."""
    stop: int
    """Index after its last row."""
    next_offset: int
    """Byte offset in the shard at which row `stop` begins."""
    last: bool
    """True if the shard has no row `stop`."""


@dataclass(frozen=True, slots=True)
class Damage:
    """The error rows of a tar, Parquet file or list that report unreadable places in it."""

    rows: int
    reason: str
    """Error code and message of the first such row."""
    bytes: int = 0
    """Bytes of the shard that they cover; 0 if unknown, as in Parquet files."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed part and its contents. Stored as JSON, in which `row_ranges` is called `intervals`."""

    file: str
    rows: int
    errors: dict[str, int]
    """Rows without a caption, by error code."""
    file_sha256: str
    keys_sha256: str
    """Hash of its rows' shard, index and image_id (`part_summary.hash_keys`)."""
    row_ranges: list[RowRange]
    paths: dict[str, str]
    """Path of each shard, as text, by shard id."""
    committed: float
    """Time of the commit in seconds since 1970 by the driver's clock. Informative: nothing depends on it."""
    replaces: str = ""
    """File of the commit that this one supersedes; empty if there is none."""
    epoch: str = ""
    """`pipeline.output.epochs.Epoch.id` of the driver that wrote it."""
    damage: dict[str, Damage] = field(default_factory=dict)
    """Unreadable places by shard id."""

    @property
    def record(self) -> str:
        """Name of the commit record in the output folder."""
        return f"{control_path(partition_of(self.file))}{COMMITS}/{self.file.rpartition('.')[0]}{SUFFIX}"

    def encode(self) -> bytes:
        """Returns the contents of the commit record."""
        fields = asdict(self)
        del fields["row_ranges"]
        fields["intervals"] = [astuple(row_range) for row_range in self.row_ranges]
        return json.dumps(fields, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> Commit:
        """Parses a commit record. Raises ValueError, KeyError or TypeError if it is damaged."""
        fields = json.loads(data)
        row_ranges = [RowRange(*values) for values in fields["intervals"]]
        del fields["intervals"]
        damage = {shard: Damage(**found) for shard, found in dict(fields.get("damage", {})).items()}
        commit = cls(**fields | {"row_ranges": row_ranges, "damage": damage})
        if {row_range.shard for row_range in commit.row_ranges} != commit.paths.keys():
            raise ValueError("its intervals and paths name different shards")
        return commit


@dataclass
class CommitLog:
    """The commit records of an output folder."""

    commits: list[Commit] = field(default_factory=list)
    row_ranges: dict[str, list[RowRange]] = field(default_factory=dict)
    """Committed rows by shard id."""
    shard_ids: dict[str, str] = field(default_factory=dict)
    """Shard id by path."""
    superseded: list[Commit] = field(default_factory=list)
    """Commits that others supersede, left by a crash before their deletion."""
    stale: list[Commit] = field(default_factory=list)
    """Commits that do not count, written by drivers that had lost the output."""

    @classmethod
    def load(cls, folder: Folder, partition: Partition | None = None) -> CommitLog:
        """Reads the commit records of an output, or of one of its partitions. Raises OutputError for a damaged one."""
        if partition:
            return cls._read(
                folder, control_path(partition), epochs.read_snapshot(folder.below(control_path(partition)))
            )
        snapshot = epochs.read_snapshot(folder)
        count = int(snapshot.division["count"]) if snapshot and snapshot.division else 0
        return cls.merged([cls._read(folder, "", snapshot), *cls.load_partitions(folder, count).values()])

    @classmethod
    def load_partitions(cls, folder: Folder, count: int) -> dict[Partition, CommitLog]:
        """Reads the commit records of all partitions, of several at the same time. Raises OutputError."""
        partitions = [Partition(number, count) for number in range(1, count + 1)]
        loaded = prefetch_map(partial(cls.load, folder), partitions, threads=PARTITIONS_AT_ONCE, depth=count)
        return dict(zip(partitions, loaded, strict=True))

    @classmethod
    def merged(cls, commit_logs: Iterable[CommitLog]) -> CommitLog:
        """Returns the commits of several logs as one."""
        whole = cls()
        for commit_log in commit_logs:
            for commit in commit_log.commits:
                whole.add(commit)
            whole.superseded += commit_log.superseded
            whole.stale += commit_log.stale
        return whole

    @classmethod
    def _read(cls, folder: Folder, control: str, snapshot: EpochSnapshot | None) -> CommitLog:
        below = f"{control}{COMMITS}"
        names = [f"{below}/{name}" for name in folder.names(below) if name.endswith(SUFFIX) and name[0] != "."]
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
        """Adds a commit."""
        self.commits.append(commit)
        for row_range in commit.row_ranges:
            self.row_ranges.setdefault(row_range.shard, []).append(row_range)
        self.shard_ids.update({path: shard for shard, path in commit.paths.items()})

    def remove(self, commit: Commit) -> None:
        """Removes a commit."""
        rest = [other for other in self.commits if other is not commit]
        self.commits, self.row_ranges, self.shard_ids = [], {}, {}
        for other in rest:
            self.add(other)

    def remaining_work(self, shards: Iterable[Shard]) -> Iterator[Span]:
        """Yields the uncommitted spans in order. Raises OutputError for a shard that changed since it was captioned."""
        for shard in shards:
            shard_id, path = shard.id, printable(shard.path)
            if self.shard_ids.get(path, shard_id) != shard_id:
                raise OutputError(
                    f"{path} has changed since it was captioned; give another output,"
                    " or --retry_errors if it was an error then"
                )
            yield from missing_ranges(shard, self.row_ranges.get(shard_id, ()))

    def damage(self) -> dict[str, Damage]:
        """Total damage of tars, Parquet files and lists, by shard id."""
        found: dict[str, Damage] = {}
        for commit in self.commits:
            for shard, more in commit.damage.items():
                before = found.get(shard, Damage(0, more.reason))
                found[shard] = Damage(before.rows + more.rows, before.reason, before.bytes + more.bytes)
        return found

    def lost_share(self, shard: str, damage: Damage, size: int) -> float:
        """Returns the unreadable share of a shard, in [0, 1]: 1 if no image could be read, else by bytes or by rows.

        Args:
            shard: id of the shard.
            damage: all damage of the shard.
            size: size of the shard in bytes.
        """
        rows = sum(row_range.stop - row_range.start for row_range in self.row_ranges[shard])
        if damage.rows >= rows:
            return 1.0
        return damage.bytes / size if damage.bytes and size > 0 else damage.rows / rows

    @property
    def rows(self) -> int:
        """Number of committed rows."""
        return sum(commit.rows for commit in self.commits)

    @property
    def errors(self) -> dict[str, int]:
        """Number of committed rows without a caption, by error code."""
        counts: dict[str, int] = {}
        for commit in self.commits:
            for code, count in commit.errors.items():
                counts[code] = counts.get(code, 0) + count
        return dict(sorted(counts.items()))


def missing_ranges(shard: Shard, row_ranges: Sequence[RowRange]) -> Iterator[Span]:
    """Yields the spans of a shard that none of its committed row ranges covers."""
    index, offset = 0, 0
    for row_range in sorted(row_ranges):
        if row_range.start > index:
            yield Span(shard, index, offset, row_range.start)
        index, offset = max((index, offset), (row_range.stop, row_range.next_offset))
        if row_range.last:
            return
    yield Span(shard, index, offset)
