"""`shardtalk verify`: proves that every image of the input is in an output exactly once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from configs.verify import VerifyConfig
from jobs import cli
from jobs.console.messages import print_line
from pipeline.filenames import normalize_path
from pipeline.inputs.listing import list_inputs
from pipeline.output.commit_log import CommitLog
from pipeline.output.job_record import check_is_output, check_reading_rules, read_job
from pipeline.read_options import ReadOptions
from pipeline.storage.folder import Folder
from pipeline.verification.folder_census import list_files
from pipeline.verification.part_check import RowCounts
from pipeline.verification.verify import find_problems

SHOWN = 100


@dataclass(frozen=True)
class Examination:
    """The result of `examine`."""

    problems: list[str]
    """One line per problem; empty if the output is proven to be complete."""
    counts: RowCounts
    """Numbers of captions and errors among the rows."""
    num_files: int | None
    """Number of input files; None if the output was not compared with its input."""


def run(config: VerifyConfig) -> int:
    """Prints the problems found, or a line that there are none; returns the exit code."""
    out, *inputs = config.paths
    found = examine(out, inputs, max_problems=SHOWN + 1)
    for problem in found.problems[:SHOWN]:
        print_line(problem)
    if found.problems:
        more = f"more than {SHOWN}" if len(found.problems) > SHOWN else str(len(found.problems))
        print_line(f"NOT verified: {more} problems in {out}")
        return cli.FAILED
    compared = found.num_files is not None
    against = f"the {found.num_files} files of its input" if compared else "itself only; give its inputs, too"
    errors = found.counts.errors.total()
    print_line(
        f"verified: {found.counts.captions + errors} rows, each key once: {found.counts.captions} captions,"
        f" {errors} errors, checked against {against}"
    )
    return 0


def examine(out: str, inputs: Sequence[str], *, max_problems: int) -> Examination:
    """Checks an output, and stops after `max_problems` problems. Raises OutputError for a folder that is no output.

    Args:
        inputs: what was captioned, to compare key by key; empty checks the output against itself only.
    """
    folder = Folder(out)
    check_is_output(folder)
    commit_log = CommitLog.load(folder)
    job = read_job(folder)
    options = ReadOptions.from_job(job)
    names = [normalize_path(name) for name in inputs]
    shards = list_inputs(names, options).shards if inputs else None
    if shards is not None:
        check_reading_rules(folder, job)
    counts = RowCounts()
    lines = find_problems(folder, commit_log, shards, options, files=list_files(names), counts=counts)
    return Examination([*islice(lines, max_problems)], counts, None if shards is None else len(shards))


if __name__ == "__main__":
    sys.exit(cli.main(["verify", *sys.argv[1:]]))
