"""The record of the job that writes an output folder, and the checks that folder and job fit together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from configs.loading.renamed import with_new_names
from pipeline.errors import OutputError
from pipeline.inputs.brace_expansion import expand_input
from pipeline.output import epochs
from pipeline.output.cleanup import is_unfinished
from pipeline.output.commit_log import CommitLog
from pipeline.output.layout import JOB
from pipeline.output.lease import LEASE
from pipeline.read_options import RULES_VERSION
from pipeline.shards import STANDARD_INPUT
from pipeline.storage.filesystems import is_remote
from pipeline.storage.folder import Folder


def check_outside_inputs(output: str, inputs: Iterable[str]) -> None:
    """Raises OutputError if the output lies inside an input folder, where the next run would read it as input."""
    for given in (name for text in inputs for name in expand_input(text) if text != STANDARD_INPUT):
        if is_remote(output) or is_remote(given):
            inside = f"{output.rstrip('/')}/".startswith(f"{given.rstrip('/')}/")
        else:
            folder = Path(given).expanduser().resolve()
            inside = folder.is_dir() and Path(output).resolve().is_relative_to(folder)
        if inside:
            raise OutputError(f"output {output} lies inside the input {given}; give one outside")


def check_output_folder(folder: Folder) -> None:
    """Raises OutputError for a path that cannot be an output folder, or a folder that holds other files."""
    if not is_remote(folder.url):
        place = Path(folder.path)
        there = next(path for path in (place, *place.parents) if os.path.lexists(path))
        if not there.is_dir():
            raise OutputError(f"{folder.url} cannot be the output folder: {there} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise OutputError(f"{folder.url} cannot be the output folder: {there} is not writable")
    if folder.exists(JOB):
        return
    try:
        found = [name for name in folder.names() if name != LEASE and not is_unfinished(name)]
    except UnicodeDecodeError as error:  # raised by pyarrow for names that are not UTF-8
        raise OutputError(f"{folder.url} cannot be the output folder: {error}") from error
    if found and epochs.read_snapshot(folder) is None:
        raise OutputError(f"{folder.url} holds other files, such as {found[0]}; give an empty or new folder")


def check_is_output(folder: Folder) -> None:
    """Raises OutputError for a folder that no job has claimed."""
    if not folder.exists(JOB):
        raise OutputError(f"{folder.url} is no output of `shardtalk caption`")


def check_same_job(folder: Folder, commit_log: CommitLog, job: Mapping[str, Any]) -> None:
    """Raises OutputError if the output was begun by a different job, naming the differences.

    Without rows, any job may, unless the output is divided into partitions: others may be running.

    Args:
        commit_log: the output's commits.
        job: the settings that determine the captions, as nested JSON.
    """
    snapshot = epochs.read_snapshot(folder)
    if not commit_log.commits and not (snapshot and snapshot.division):
        return
    before = read_job(folder)
    check_reading_rules(folder, before, _rules(job))
    differences = _differences(before, job)
    if differences:
        raise OutputError(
            f"{folder.url} was begun by another job: {'; '.join(differences)}; give another output, or the old settings"
        )


def read_job(folder: Folder) -> Mapping[str, Any]:
    """Reads the settings that determine the rows of an output, named as today. Raises OutputError if it is damaged."""
    if snapshot := epochs.read_snapshot(folder):
        return with_new_names(snapshot.job)
    try:
        return with_new_names(dict(json.loads(folder.read(JOB))))
    except (ValueError, TypeError) as error:
        raise OutputError(f"{folder.url}/{JOB} is damaged: {error}") from error


def write_job(folder: Folder, job: Mapping[str, Any]) -> None:
    """Records the job in its output folder, after `check_same_job`."""
    written = json.dumps(job, indent=2, ensure_ascii=False).encode()
    if not folder.exists(JOB) or folder.read(JOB) != written:
        folder.write(JOB, written)


def check_reading_rules(folder: Folder, job: Mapping[str, Any], rules: Any = RULES_VERSION) -> None:
    """Raises OutputError for an output that was begun under another version of the rules that turn input into rows."""
    if _rules(job) != rules:
        raise OutputError(
            f"{folder.url} was begun by a version of Shardtalk with other rules of what is a row (now each image of a"
            " tar is one, and each damaged place); use that version, or give another output"
        )


def _rules(job: Mapping[str, Any]) -> Any:
    reading = job.get("reading")
    return reading.get("rules") if isinstance(reading, Mapping) else None


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        return [d for key in keys for d in _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))]
    return [] if before == now else [f"{name} was {before!r} and is {now!r}"]
