"""`shardtalk status`: shows the progress of a job, from its output alone."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta

from configs.status import StatusConfig
from jobs import cli
from pipeline.errors import OutputError
from pipeline.output.layout import JOB
from pipeline.results.progress import Status, read_status
from pipeline.storage.folder import Folder

MEGABYTE = 1e6
CURSOR_UP_AND_CLEAR = "\x1b[{}F\x1b[J"
"""Moves a terminal's cursor to the beginning of a line above, and clears what follows."""


def run(config: StatusConfig) -> int:
    """Prints the progress of a job, once or until it ends; returns the exit code."""
    folder = Folder(config.output)
    if not folder.exists(JOB):
        raise OutputError(f"{config.output} is no output of `shardtalk caption`")
    status, shown = read_status(folder), ""
    while True:
        text = json.dumps(asdict(status)) + "\n" if config.json else describe(status)
        if shown and not config.json and sys.stdout.isatty():
            sys.stdout.write(CURSOR_UP_AND_CLEAR.format(shown.count("\n")))
        sys.stdout.write(text)
        sys.stdout.flush()
        if not config.watch or status.state == "complete":
            return 0
        if status.state == "stopped":
            return cli.FAILED
        time.sleep(config.interval_s)
        status, shown = read_status(folder), text


def describe(status: Status) -> str:
    """Formats the status as a few lines of text."""
    lines = [
        f"{status.state}{f': {status.driver}' if status.driver else ''}",
        f"{status.rows:,} rows, {sum(status.errors.values()):,} of them errors"
        + (f" ({', '.join(f'{code} {count:,}' for code, count in status.errors.items())})" if status.errors else ""),
        f"{status.share:.1%} of the bytes ({status.bytes / MEGABYTE:,.1f} of {status.total_bytes / MEGABYTE:,.1f} MB),"
        f" {status.files:,} of {status.total_files:,} files",
    ]
    if status.partitions:
        lines.insert(1, _describe_partitions(status.partitions))
    if status.rows_per_s:
        lines.append(f"{status.rows_per_s:,.1f} rows/s")
    if status.seconds_left:
        lines[-1] += f", {timedelta(seconds=round(status.seconds_left))} left"
    return "".join(f"{line}\n" for line in lines)


def _describe_partitions(states: Mapping[str, str]) -> str:
    """Describes states as "3 partitions: 2 finished, 1 stopped (2/3)", naming those whose command is to be given."""
    counts = Counter(states.values())
    named = {
        state: f" ({', '.join(each for each in states if states[each] == state)})"
        for state in ("stopped", "not started")
    }
    told = [f"{counts[state]} {state}{named.get(state, '')}" for state in sorted(counts)]
    return f"{len(states)} partitions: {', '.join(told)}"


if __name__ == "__main__":
    sys.exit(cli.main(["status", *sys.argv[1:]]))
