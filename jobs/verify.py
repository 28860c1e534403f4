"""`shardtalk verify`: proof that every input key is in an output exactly once."""

from __future__ import annotations

import sys
from itertools import islice

from configs.verify import VerifyConfig
from jobs import cli, terminal
from pipeline.errors import OutputError
from pipeline.inputs import list_inputs
from pipeline.ledger import Ledger
from pipeline.outcome import ReadOptions
from pipeline.output import JOB, read_job, require_rules
from pipeline.paths import plain
from pipeline.storage import Folder
from pipeline.verification import problems

SHOWN = 100


def run(config: VerifyConfig) -> int:
    """Prints what is wrong, or that nothing is; returns the exit code."""
    out, *inputs = config.paths
    folder = Folder(out)
    if not folder.exists(JOB):
        raise OutputError(f"{out} is no output of `shardtalk caption`")
    ledger = Ledger.load(folder)
    job = read_job(folder)
    options = ReadOptions.of_job(job)
    shards = list_inputs(map(plain, inputs), options).shards if inputs else None
    if shards is not None:
        require_rules(folder, job)
    found = list(islice(problems(folder, ledger, shards, options), SHOWN + 1))
    for problem in found[:SHOWN]:
        terminal.show(problem)
    if found:
        more = f"more than {SHOWN}" if len(found) > SHOWN else str(len(found))
        terminal.show(f"NOT verified: {more} problems in {out}")
        return cli.FAILED
    against = "itself" if shards is None else f"the {len(shards)} files of its input"
    errors = sum(ledger.errors.values())
    terminal.show(
        f"verified: {ledger.rows} rows, each key once: {ledger.rows - errors} captions, {errors} errors,"
        f" checked against {against}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.main(["verify", *sys.argv[1:]]))
