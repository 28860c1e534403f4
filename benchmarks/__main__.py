"""`python -m benchmarks`: each row is the ratio of two sides measured alternately in this run; medians count."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks import rows, training_rows
from benchmarks.rows import Bench, Result

ROWS = rows.ROWS | training_rows.ROWS


def main() -> int:
    """Measures the rows and prints a table; returns 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=ROWS, action="append", help="measure this row (may be repeated)")
    parser.add_argument("--captioner", default="flickr8k-mobilenet-v2", help="name or directory of a captioner")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor of the numbers of images; 0.1 for a quick look"
    )
    parser.add_argument("--output", type=Path, help="file that results are appended to, as JSON lines")
    options = parser.parse_args()
    met = True
    print(f"{'row':22}{'ours':>12}{'other':>12}  {'unit':10}{'ratio':>7}  target", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), options.captioner, options.repeats, options.scale)
        for name in options.only or ROWS:
            result = ROWS[name](bench)
            print(line(name, result), flush=True)
            met &= result.is_met
            if options.output:
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"row": name, "ratio": result.ratio, **asdict(result)}) + "\n")
    return 0 if met else 1


def line(name: str, result: Result) -> str:
    """Formats a row of the table."""
    sign = "≥" if result.more_is_better else "≤"
    verdict = "" if result.is_met else "  MISSED"
    note = f"  ({result.note})" if result.note else ""
    return (
        f"{name:22}{result.median_ours:12.2f}{result.median_other:12.2f}  {result.unit:10}{result.ratio:7.2f}"
        f"  {sign} {result.target}{verdict}{note}"
    )


if __name__ == "__main__":
    sys.exit(main())
