"""The YAML files that ship with Shardtalk, found by name: `--config train-flickr8k.yaml` works in any folder."""

from __future__ import annotations

from pathlib import Path

from configs.errors import ConfigError

FOLDER = Path(__file__).parents[1]


def find_config(name: str) -> Path:
    """Returns the file of `--config`: the one at that path, or, for a name without a folder, the one that ships.

    Raises ConfigError for a name that neither has; it lists those that ship.
    """
    path = Path(name)
    if path.exists() or path.name != name:
        return path
    shipped = {file.name: file for file in sorted(FOLDER.glob("*.yaml"))}
    if name not in shipped:
        raise ConfigError(f"--config {name}: there is no such file; those that ship are {', '.join(shipped)}")
    return shipped[name]
