"""Finds and loads captioners; one on a remote filesystem is copied to a local cache once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.fs as pafs

from configs.captioning import CompileCnn
from model.captioner import checkpoint
from model.captioner.base import BaseCaptioner
from model.captioner.captioner import Captioner
from model.captioner.ensemble import Ensemble
from pipeline.errors import InputError
from pipeline.storage.filesystems import filesystem, is_remote, open_at


def find(captioner: str) -> Path:
    """Returns the directory of a captioner, given a directory, the name of a bundled captioner, or a URL.

    Raises CheckpointError for what is no captioner, InputError for a URL that cannot be read.
    """
    return checkpoint.find(_copied(captioner.rstrip("/")) if is_remote(captioner) else captioner)


def load(
    captioners: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    compile_cnn: CompileCnn = "never",
) -> BaseCaptioner:
    """Loads one captioner, or several as an ensemble.

    Args:
        captioners: directories, names or URLs, as for `find`.
        weights, device, dtype, compile_cnn: as for `Ensemble.load`.
    """
    found = [find(captioner) for captioner in captioners]
    if len(found) == 1:
        return Captioner.load(found[0], device=device, dtype=dtype, compile_cnn=compile_cnn)
    return Ensemble.load(found, weights=weights, device=device, dtype=dtype, compile_cnn=compile_cnn)


def _copied(url: str) -> Path:
    """Returns a local copy of the files at `url`, reusing an earlier copy with the same names, sizes and times."""
    try:
        system, path = filesystem(url)
        files = [
            info
            for info in system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
            if info.base_name in checkpoint.FILES
        ]
        if not files:
            raise InputError(f"there is no captioner at {url}")
        identity = "\n".join(f"{info.path} {info.size} {info.mtime_ns}" for info in sorted(files, key=lambda i: i.path))
        parent = _cache() / hashlib.sha256(f"{url}\n{identity}".encode()).hexdigest()[:16]
        target = parent / url.rpartition("/")[2]
        if not target.exists():
            parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=parent))
            for info in files:
                with open_at(f"{url}/{info.base_name}") as source, (unfinished / info.base_name).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            _move(unfinished, target)
    except OSError as error:
        raise InputError(f"captioner {url} cannot be copied: {error}") from error
    return target


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardtalk" / "captioners"


def _move(unfinished: Path, target: Path) -> None:
    """Renames a finished copy to its final name, unless another process was faster."""
    try:
        unfinished.rename(target)
    except OSError:
        shutil.rmtree(unfinished)
        if not target.exists():
            raise
