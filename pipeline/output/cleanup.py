"""Deletes uncommitted files from an output folder."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import OutputError
from pipeline.output import epochs
from pipeline.output.commit_log import COMMITS, SUFFIX, CommitLog
from pipeline.output.layout import HUGGING_FACE, PART
from pipeline.output.lease import LEASE
from pipeline.storage.folder import UNFINISHED, Folder

_UNFINISHED = ("._", ".part-", ".0", f".{HUGGING_FACE}")
"""Prefixes of the temporary names under which Shardtalk writes its files."""


def sweep(folder: Folder, commit_log: CommitLog, *, confirm: Callable[[], None]) -> None:
    """Deletes parts without a commit record, stale commit records, and temporary files that a crash left.

    Args:
        confirm: called between listing and deleting; raises if this process may no longer write, because the listed
            files may then belong to another driver.

    Raises OutputError for a commit record whose part was removed.
    """
    names, records = folder.names(), folder.names(COMMITS)
    claims = [name for name in folder.names(epochs.EPOCHS) if is_unfinished(name)]
    confirm()
    files, own = {commit.file for commit in commit_log.commits}, {commit.record for commit in commit_log.commits}
    for name in sorted(files.difference(names)):
        record = next(commit.record for commit in commit_log.commits if commit.file == name)
        raise OutputError(f"{folder.url}/{name} is gone; delete {record} there, too, to have its rows captioned again")
    for name in names:
        if (name.startswith(PART) and name not in files) or is_unfinished(name):
            folder.remove(name)
    for name in records:
        if (name.endswith(SUFFIX) and f"{COMMITS}/{name}" not in own) or is_unfinished(name):
            folder.remove(f"{COMMITS}/{name}")
    for name in claims:
        folder.remove(f"{epochs.EPOCHS}/{name}")


def is_unfinished(name: str) -> bool:
    """Returns whether a file is a temporary one that a crash left; False for the lease's, which may be in use."""
    return name.startswith(_UNFINISHED) and name.endswith(".tmp") and name != UNFINISHED.format(LEASE)
