"""Build hook of hatchling: in a wheel, all packages lie inside `shardtalk`, so that an installation owns one name.

A checkout has `model/`, `pipeline/`, … at its top level. `[tool.hatch.build.targets.wheel.sources]` moves them; this
hook adapts the import statements of their modules: `from model.captioner import Captioner` becomes
`from shardtalk.model.captioner import Captioner`. Nothing else in a module is changed, so no module may name another
in a string (`tests/test_architecture.py`). docs/decisions/0020-one-name-when-installed.md has the reasons.
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "shardtalk"
PACKAGES = frozenset({"cluster", "configs", "jobs", "model", "pipeline"})


class AdaptImports(BuildHookInterface):  # type: ignore[type-arg]
    """Gives hatchling adapted copies of the modules. An editable installation has the checkout as it is."""

    _copies: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Writes the copies, and has them included in the place of the modules."""
        if version == "editable":
            return
        self._copies = Path(tempfile.mkdtemp(prefix="shardtalk-build-"))
        for file in list(self.build_config.builder.recurse_included_files()):
            if file.path.endswith(".py"):
                copy = self._copies / file.distribution_path
                copy.parent.mkdir(parents=True, exist_ok=True)
                source = Path(file.path).read_text(encoding="utf-8")
                copy.write_text(adapted(source, file.relative_path), encoding="utf-8")
                build_data["force_include"][str(copy)] = file.distribution_path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Deletes the copies."""
        if self._copies:
            shutil.rmtree(self._copies)


def adapted(source: str, name: str) -> str:
    """The module's source with `shardtalk.` before our packages in its import statements; lines keep their numbers.

    Raises ValueError for `import model.captioner`, which binds the name `model`: write `from model import captioner`.
    """
    lines = [line.encode() for line in source.splitlines(keepends=True)]  # as ast counts columns: in bytes
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.ImportFrom) and not node.level and _is_ours(node.module):
            _replace(lines, node, rb"from\s+", rb"\g<0>" + f"{NAME}.".encode())
        elif isinstance(node, ast.Import) and any(_is_ours(each.name) for each in node.names):
            if len(node.names) > 1 or ("." in node.names[0].name and not node.names[0].asname):
                raise ValueError(f"{name}:{node.lineno}: a wheel cannot have `{ast.unparse(node)}`; import by `from`")
            dotted = "." in node.names[0].name
            _replace(
                lines, node, rb"import\s+", f"import {NAME}.".encode() if dotted else f"from {NAME} import ".encode()
            )
    return b"".join(lines).decode()


def _is_ours(module: str | None) -> bool:
    return bool(module) and str(module).partition(".")[0] in PACKAGES


def _replace(lines: list[bytes], node: ast.stmt, pattern: bytes, replacement: bytes) -> None:
    """At the beginning of the statement, the only place where it may stand."""
    line = lines[node.lineno - 1]
    before, statement = line[: node.col_offset], line[node.col_offset :]
    lines[node.lineno - 1] = before + re.sub(rb"\A" + pattern, replacement, statement, count=1)
