"""The output folder as a whole: whose it is, what is in it, and the manifest that says it is complete.

_job.json        what decides the captions; written first
_lease.json      whose turn it is to write; gone when nobody does
_plan.json       what there is to do in all, for those who watch
part-*.parquet   or .jsonl: the rows
_commits/        a record for each part
_exports/        other forms of the rows, on request
.huggingface.yaml  tells Hugging Face `datasets` that only the parts are data (JSON is YAML)
_manifest.json   written last, once every input is committed; readers trust it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.inputs import expand_braces
from pipeline.ledger import COMMITS, SUFFIX, Ledger
from pipeline.outcome import RULES
from pipeline.schema import ROW, TOKEN_PROBS, extended
from pipeline.shards import STANDARD_INPUT
from pipeline.storage import UNFINISHED, Folder, is_remote

JOB, MANIFEST, PART = "_job.json", "_manifest.json", "part-"
HUGGING_FACE = ".huggingface.yaml"


def refuse_inside(output: str, inputs: Iterable[str]) -> None:
    """Raises OutputError if the output lies in an input folder, where the next run would take it for input."""
    for given in (name for text in inputs for name in expand_braces(text) if text != STANDARD_INPUT):
        if is_remote(output) or is_remote(given):
            inside = f"{output.rstrip('/')}/".startswith(f"{given.rstrip('/')}/")
        else:
            folder = Path(given).expanduser().resolve()
            inside = folder.is_dir() and Path(output).resolve().is_relative_to(folder)
        if inside:
            raise OutputError(f"output {output} lies inside the input {given}; give one outside")


def claim(folder: Folder, job: Mapping[str, Any]) -> None:
    """Makes the folder this job's, or checks that it is.

    Args:
        job: what decides the captions, as nested JSON.

    Raises OutputError if the folder cannot be made, or holds something else, or the output of a job that differs,
    saying in what.
    """
    if not folder.exists(JOB):
        try:
            found = [name for name in folder.names() if name != UNFINISHED.format(JOB)]
            if found:
                raise OutputError(f"{folder.url} holds other files, such as {found[0]}; give an empty or new folder")
            folder.write(JOB, json.dumps(job, indent=2, ensure_ascii=False).encode())
        except (OSError, UnicodeDecodeError) as error:
            raise OutputError(f"{folder.url} cannot be a folder for the rows: {error}") from error
        return
    before = read_job(folder)
    require_rules(folder, before, _rules(job))
    differences = _differences(before, job)
    if differences:
        raise OutputError(
            f"{folder.url} was begun by another job: {'; '.join(differences)}; give another output, or what it had then"
        )


def read_job(folder: Folder) -> dict[str, Any]:
    """What `claim` wrote. Raises OutputError."""
    try:
        job = json.loads(folder.read(JOB))
        return {**job}
    except (ValueError, TypeError) as error:
        raise OutputError(f"{folder.url}/{JOB} is damaged: {error}") from error


def require_rules(folder: Folder, job: Mapping[str, Any], rules: Any = RULES) -> None:
    """Raises OutputError for the output of a job that was begun under other rules of what is a row."""
    if _rules(job) != rules:
        raise OutputError(
            f"{folder.url} was begun by a version of Shardtalk with other rules of what is a row (now each image of a"
            " tar is one, and each damaged place); use that version for it, or give another output"
        )


def _rules(job: Mapping[str, Any]) -> Any:
    reading = job.get("reading")
    return reading.get("rules") if isinstance(reading, Mapping) else None


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        return [d for key in keys for d in _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))]
    return [] if before == now else [f"{name} was {before!r} and is {now!r}"]


def sweep(folder: Folder, ledger: Ledger) -> None:
    """Deletes data without a commit record: what a crash left between the two.

    Raises OutputError for a record without its data: somebody took that away.
    """
    names, committed = folder.names(), {commit.file for commit in ledger.commits}
    for name in sorted(committed.difference(names)):
        record = next(commit.record for commit in ledger.commits if commit.file == name)
        raise OutputError(f"{folder.url}/{name} is gone; delete {record} there, too, to have its rows captioned again")
    for name in names:
        if name.startswith((PART, f".{PART}")) and name not in committed:
            folder.remove(name)
    replaced = {commit.record for commit in ledger.replaced}
    for name in folder.names(COMMITS):
        if name.startswith(f".{PART}") or f"{COMMITS}/{name}" in replaced:
            folder.remove(f"{COMMITS}/{name}")


def finish(folder: Folder, ledger: Ledger, *, job: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest, and returns it.

    Args:
        job: as given to `claim`.
        run: what is worth knowing of the run that finished it: timings, versions.
    """
    _remove_strangers(folder, ledger)
    manifest = {
        "totals": {
            "rows": ledger.rows,
            "captions": ledger.rows - sum(ledger.errors.values()),
            "errors": sum(ledger.errors.values()),
            "shards": len(ledger.intervals),
        },
        "errors": ledger.errors,
        **job,
        **run,
        "files": {
            commit.file: {"rows": commit.rows, "sha256": commit.file_sha256}
            for commit in sorted(ledger.commits, key=lambda commit: commit.file)
        },
    }
    folder.write(HUGGING_FACE, json.dumps(_describe_to_datasets(job), indent=2).encode())
    folder.write(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False).encode())
    return manifest


def _remove_strangers(folder: Folder, ledger: Ledger) -> None:
    """Removes what a driver committed that had lost the lease between asking for it and committing."""
    own = {commit.record for commit in ledger.commits}
    for name in folder.names(COMMITS):
        if name.endswith(SUFFIX) and f"{COMMITS}/{name}" not in own:
            folder.remove(f"{COMMITS}/{name}")
    sweep(folder, ledger)


def _describe_to_datasets(job: Mapping[str, Any]) -> dict[str, Any]:
    """Which files are data, and the types of the columns: `datasets` guesses those of JSON by the first part."""

    def feature(field: pa.Field) -> dict[str, Any]:
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            return {"name": field.name, "list": [feature(inner) for inner in field.type.value_type]}
        if pa.types.is_list(field.type):
            return {"name": field.name, "list": feature(field.type.value_field)["dtype"]}
        return {"name": field.name, "dtype": "float32" if pa.types.is_float32(field.type) else str(field.type)}

    fields = extended(ROW, [TOKEN_PROBS.name] if job.get("search", {}).get("token_probs") else [])
    return {
        "configs": [{"config_name": "default", "data_files": f"{PART}*.{job['format']}"}],
        "dataset_info": {"config_name": "default", "features": [feature(field) for field in fields]},
    }


def read_rows(folder: Folder, ledger: Ledger, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The committed rows, a table per part."""
    for commit in sorted(ledger.commits, key=lambda commit: commit.file):
        yield read_part(folder, commit.file, columns)


def read_part(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of a part, or some columns of them. Raises OSError or ValueError for one that is damaged."""
    data = folder.read(name)
    if name.endswith(".parquet"):
        # With threads, a process that ends soon after may abort while pyarrow's pool is still starting (26.0).
        return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=False)
    records = [json.loads(line) for line in data.splitlines()]
    rows = pa.Table.from_pylist(records, schema=extended(ROW, records[0] if records else ()))
    return rows.select(columns) if columns else rows
