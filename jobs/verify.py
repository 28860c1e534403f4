"""`shardtalk verify`: proof that every input key is in an output exactly once."""

from __future__ import annotations

import sys
from itertools import islice

from configs.verify import VerifyConfig
from jobs import cli, terminal
from pipeline.errors import OutputError
from pipeline.inputs.listing import list_inputs
from pipeline.outcome import ReadOptions
from pipeline.output.commit_log import CommitLog
from pipeline.output.job_record import check_reading_rules, read_job
from pipeline.output.layout import JOB
from pipeline.storage.folder import Folder
from pipeline.storage.paths import plain
from pipeline.verification.folder_census import list_files
from pipeline.verification.verify import Counts, problems

SHOWN = 100


def run(config: VerifyConfig) -> int:
    """Prints what is wrong, or that nothing is; returns the exit code."""
    out, *inputs = config.paths
    folder = Folder(out)
    if not folder.exists(JOB):
        raise OutputError(f"{out} is no output of `shardtalk caption`")
    commit_log = CommitLog.load(folder)
    job = read_job(folder)
    options = ReadOptions.of_job(job)
    names = [plain(name) for name in inputs]
    shards = list_inputs(names, options).shards if inputs else None
    if shards is not None:
        check_reading_rules(folder, job)
    counts = Counts()
    lines = problems(folder, commit_log, shards, options, files=list_files(names), counts=counts)
    found = list(islice(lines, SHOWN + 1))
    for problem in found[:SHOWN]:
        terminal.show(problem)
    if found:
        more = f"more than {SHOWN}" if len(found) > SHOWN else str(len(found))
        terminal.show(f"NOT verified: {more} problems in {out}")
        return cli.FAILED
    against = f"the {len(shards)} files of its input" if shards is not None else "itself only; give its inputs, too"
    errors = counts.errors.total()
    terminal.show(
        f"verified: {counts.captions + errors} rows, each key once: {counts.captions} captions, {errors} errors,"
        f" checked against {against}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.main(["verify", *sys.argv[1:]]))
