"""Deletes from an output folder what does not count."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import OutputError
from pipeline.output import epochs
from pipeline.output.commit_log import COMMITS, SUFFIX, CommitLog
from pipeline.output.layout import HUGGING_FACE, PART
from pipeline.output.lease import LEASE
from pipeline.storage.folder import UNFINISHED, Folder

_UNFINISHED = ("._", ".part-", ".0", f".{HUGGING_FACE}")
"""What the names of our files begin with while they are written."""


def sweep(folder: Folder, commit_log: CommitLog, *, confirm: Callable[[], None]) -> None:
    """Deletes what does not count: data without a record, records that came late, and what a crash left unfinished.

    Args:
        confirm: called between listing and deleting; raises if this process may not write any more, for then what is
            listed may be another's.

    Raises OutputError for a record without its data: somebody took that away.
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
    """Whether a crash may have left it in the place of one of our files. The lease's own is being renewed, perhaps."""
    return name.startswith(_UNFINISHED) and name.endswith(".tmp") and name != UNFINISHED.format(LEASE)
