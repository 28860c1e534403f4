"""`caption`, `read` and `verify`: whole jobs and their outputs, as functions."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Location = str | os.PathLike[str]
"""A path or a URL."""


class JobError(RuntimeError):
    """A job that ended without finishing its output. What it committed stays; the same call goes on from there."""


def caption(inputs: Location | Sequence[Location], output: Location, **options: Any) -> dict[str, Any]:
    """Captions the inputs into the folder `output`, as `shardtalk caption` does; goes on where an earlier call ended.

    Args:
        inputs: folders, image files, tars, Parquet files, lists, globs or URLs; one or several.
        output: a new folder, or that of the same job.
        options: the options of the command by name, such as `captioner="run/best"`, `runner="ray"`; a section is a
            mapping or a dataclass: `search={"beam_size": 3}` or `search=Search(beam_size=3)`.

    Returns the manifest of the output, or with `partition` that of the partition; `["totals"]` counts rows, captions
    and errors.

    Progress goes to stderr; messages go to the logger "shardtalk", which writes them to stderr if the program has not
    set up logging. Raises ValueError (one of its subclasses, which says what to change) for an option that does not
    exist, and for an option, input, captioner or output that cannot be used, OSError for faults of disk and
    network, JobError where more rows or shards failed than `max_error_rate` and `max_lost_shards` allow, and
    KeyboardInterrupt once what was done is committed, where the process was asked to stop.
    """
    from configs.caption import CaptionConfig
    from configs.loading.building import build

    given = {"output": os.fspath(output), "inputs": _locations(inputs)} | options
    config = build(CaptionConfig, given)

    from jobs import caption as job
    from jobs import cli
    from jobs.console import messages
    from pipeline.output.layout import MANIFEST, control_path
    from pipeline.storage.folder import Folder

    if not logging.getLogger(messages.LOGGER).hasHandlers():  # else the program shows them as it likes
        messages.show_on_stderr()
    code = job.run(config)
    if code == cli.INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise JobError(f"the job failed; its messages say why. What it committed is in {config.output}")
    manifest: dict[str, Any] = json.loads(Folder(config.output).read(control_path(config.share) + MANIFEST))
    return manifest


def read(output: Location, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the committed rows of an output, finished or not, as one table ordered by `shard` and `index`.

    Args:
        columns: those to read; None for all.

    Raises OutputError, a ValueError, for a folder that is no output.
    """
    import pyarrow as pa

    from pipeline.output.commit_log import CommitLog
    from pipeline.output.job_record import check_is_output
    from pipeline.output.part_reader import read_rows
    from pipeline.schema import ROW
    from pipeline.storage.folder import Folder

    folder = Folder(os.fspath(output))
    check_is_output(folder)
    place = ["shard", "index"]
    wanted = None if columns is None else [*dict.fromkeys([*columns, *place])]
    tables = list(read_rows(folder, CommitLog.load(folder), wanted))
    rows = pa.concat_tables(tables, promote_options="permissive") if tables else ROW.empty_table()
    rows = rows.sort_by([(name, "ascending") for name in place])
    return rows if columns is None else rows.select(list(columns))


def verify(output: Location, inputs: Location | Sequence[Location] = (), *, max_problems: int = 100) -> list[str]:
    """Checks an output; returns its problems, one line each: none if it holds every input key exactly once.

    Args:
        inputs: the inputs that were captioned, to compare key by key; without them the output is only checked against
            itself.
        max_problems: the number of problems after which the check ends.

    Raises OutputError, a ValueError, for a folder that is no output.
    """
    from jobs.verify import examine

    return examine(os.fspath(output), _locations(inputs), max_problems=max_problems).problems


def _locations(given: Location | Sequence[Location]) -> list[str]:
    return [os.fspath(one) for one in ([given] if isinstance(given, str | os.PathLike) else given)]
