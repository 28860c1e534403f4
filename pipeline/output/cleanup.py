"""Deletes uncommitted files from an output folder."""

from __future__ import annotations

from collections.abc import Callable

from configs.partition import Partition
from pipeline.errors import OutputError
from pipeline.output.commit_log import COMMITS, SUFFIX, CommitLog
from pipeline.output.epochs import EPOCHS
from pipeline.output.layout import HUGGING_FACE, control_path, part_prefix
from pipeline.output.lease import LEASE
from pipeline.storage.folder import Folder

_UNFINISHED = ("._", ".part-", ".0", f".{HUGGING_FACE}")
"""Prefixes of the temporary names under which Shardtalk writes its files."""


def sweep(
    folder: Folder, commit_log: CommitLog, *, confirm: Callable[[], None], partition: Partition | None = None
) -> None:
    """Deletes parts without a commit record, stale commit records, and temporary files that a crash left.

    Args:
        commit_log: the commits of the whole output, or of the partition.
        confirm: called between listing and deleting; raises if this process may no longer write, because the listed
            files may then belong to another driver.
        partition: the partition whose files are swept, and no others; None for the whole output.

    Raises OutputError for a commit record whose part was removed.
    """
    control, parts = control_path(partition), folder.names()
    folders = [f"{control}{COMMITS}", f"{control}{EPOCHS}", *([control.rstrip("/")] if control else [])]
    others = [f"{below}/{name}" for below in folders for name in folder.names(below)]
    if control:  # where its driver may have died while it divided the output
        others += [f"{EPOCHS}/{name}" for name in folder.names(EPOCHS) if name.endswith(folder.unfinished_end)]
    confirm()
    files, records = {commit.file for commit in commit_log.commits}, {commit.record for commit in commit_log.commits}
    for name in sorted(files.difference(parts)):
        record = next(commit.record for commit in commit_log.commits if commit.file == name)
        raise OutputError(f"{folder.url}/{name} is gone; delete {record} there, too, to have its rows captioned again")
    for name in parts:
        is_own = name.endswith(folder.unfinished_end) and is_unfinished(name)
        if is_own or (name.startswith(part_prefix(partition)) and name not in files):
            folder.remove(name)
    for path in others:
        if is_unfinished(path.rpartition("/")[2]) or (path.endswith(SUFFIX) and path not in records):
            folder.remove(path)


def is_unfinished(name: str) -> bool:
    """Returns whether a file is a temporary one that a crash left; False for the lease's, which may be in use."""
    return name.startswith(_UNFINISHED) and name.endswith(".tmp") and name != f".{LEASE}.tmp"
