"""Results: results.json, which is complete after each row, and a table of it.

{"machine": {…}, "options": {…}, "started": "2026-01-31T12:00:00+00:00", "seconds": 412.0,
 "rows": [{"row": "cnn", "status": "measured", "seconds": 41.2, "notes": [],
           "figures": [{"name": "resnet50, batch 256", "value": 9876.5, "unit": "images/s"}, …]}, …]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

Status = Literal["measured", "skipped", "incomplete", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass
class RowResult:
    """The result of a row."""

    row: str
    status: Status = "measured"
    seconds: float = 0.0
    figures: list[dict[str, Any]] = field(default_factory=list)
    """Measured values, each with name, value and unit."""
    notes: list[str] = field(default_factory=list)
    """Failures, skipped parts and remarks."""

    def add(self, lines: str) -> None:
        """Adds findings, a JSON object per line; the last may be cut, since the row's process may be stopped."""
        for line in lines.splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            found = json.loads(line)
            if "name" in found:
                self.figures.append(found)
            else:
                self.update_status(found["status"], found["note"])

    def update_status(self, status: Status, note: str) -> None:
        """Adds a note, and keeps the worse status."""
        self.status = max(self.status, status, key=STATUSES.index)
        self.notes.append(note)


@dataclass
class Results:
    """The results of a run."""

    machine: Mapping[str, Any]
    options: Mapping[str, Any]
    started: str
    seconds: float = 0.0
    rows: list[RowResult] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes the file atomically."""
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(path)

    def table(self) -> str:
        """Formats all figures as a Markdown table."""
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        head = [f"{self.started}: {machine}", "", "| row | figure | value | unit |", "|---|---|---|---|"]
        return "\n".join([*head, *(line for row in self.rows for line in _lines(row))])


def _lines(row: RowResult) -> Iterator[str]:
    for figure in row.figures:
        yield f"| {row.row} | {figure['name']} | {_rounded(figure['value'])} | {figure['unit']} |"
    if row.status != "measured" or row.notes:
        yield f"| {row.row} | {row.status} | | {'; '.join(row.notes)} |"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004
