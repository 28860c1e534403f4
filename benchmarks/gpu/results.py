"""What was found: results.json, complete after every row, and a table of it.

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
    """Of one row."""

    row: str
    status: Status = "measured"
    seconds: float = 0.0
    figures: list[dict[str, Any]] = field(default_factory=list)
    """name, value and unit of each."""
    notes: list[str] = field(default_factory=list)
    """What failed, was left out, or is worth knowing."""

    def add(self, lines: str) -> None:
        """Takes in what the row's process wrote, a JSON object a line. The last may be cut: it was ended any time."""
        for line in lines.splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            found = json.loads(line)
            if "name" in found:
                self.figures.append(found)
            else:
                self.became(found["status"], found["note"])

    def became(self, status: Status, note: str) -> None:
        """Adds a note; the worst status counts."""
        self.status = max(self.status, status, key=STATUSES.index)
        self.notes.append(note)


@dataclass
class Results:
    """Of a run."""

    machine: Mapping[str, Any]
    options: Mapping[str, Any]
    started: str
    seconds: float = 0.0
    rows: list[RowResult] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Replaces the file at once."""
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(path)

    def table(self) -> str:
        """All figures, as Markdown."""
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
