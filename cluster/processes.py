"""Processes of a session on this machine (Linux): finds and kills them, see proc(5)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

POLL_S = 0.02
ZOMBIE = "Z"


def kill_session(leader: int) -> None:
    """Kills a session until no process is left. Processes are stopped first, so that none reports a death or forks."""
    while pids := list(processes_of(leader)):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        time.sleep(POLL_S)


def processes_of(leader: int) -> Iterator[int]:
    """Yields the living processes of a leader's session and their descendants; job drivers have their own sessions."""
    parents, family = {}, set()
    for pid, parent, session, state in _all_processes():
        if state == ZOMBIE:
            continue
        parents[pid] = parent
        if session == leader:
            family.add(pid)
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor not in family:
            ancestor = parents[ancestor]
        if ancestor in family:
            yield pid


def _all_processes() -> Iterator[tuple[int, int, int, str]]:
    """Yields number, parent, session and state of every process, see proc(5)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            yield int(entry.name), int(fields[1]), int(fields[3]), fields[0]


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat after the name, which may contain blanks; [] if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def start_time(pid: int) -> str:
    """Returns a process's start time in clock ticks; with the number, it identifies a process uniquely."""
    return fields[19] if (fields := _stat(pid)) else ""
