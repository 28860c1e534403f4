"""The metrics exported to Prometheus, and the queries of the dashboard."""

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.dashboard.modules.metrics.dashboards as dashboards_of_ray
from conftest import Run, pictures

from cluster import metrics
from cluster.connect import Resources

DASHBOARD = Path(metrics.__file__).with_name("grafana.json")
DEADLINE_S = 60.0
MARK = 12345.0
"""Rows that wait, as no job has them."""


def exported() -> dict[str, float]:
    """Returns our metrics as the node exports them: values by name and tag, summed over processes."""
    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    values: dict[str, float] = {}
    for line in lines:
        if found := re.match(r'(ray_shardtalk_\w+){(?:.*?(?:error_code|stage)="([^"]*)")?.*} (\S+)', line):
            name, tag, value = found.groups()
            key = f"{name} {tag}" if tag else name
            values[key] = values.get(key, 0.0) + float(value)
    return values


def exported_when(name: str, value: float) -> dict[str, float]:
    """Returns all metrics once one has this value; those of a process appear together, with a delay."""
    deadline = time.monotonic() + DEADLINE_S
    while exported().get(name) != value:
        assert time.monotonic() < deadline
    return exported()


def test_a_run_on_ray_is_exported(local_ray: Resources, tmp_path: Path, caption: Run) -> None:
    nothing: Any = {"images": 0, "errors": {}, "image_bytes": 0, "busy_s": {}, "batch_images": 0.0}
    metrics.Metrics().publish(**nothing, rows_waiting=MARK)
    before = exported_when("ray_shardtalk_rows_waiting", MARK)
    folder = pictures(tmp_path / "in", 3)
    (folder / "bad.jpg").write_bytes(b"no image")
    assert caption(folder, "--runner", "ray", "--ray.max_actors", 1)[0] == 0
    images = "ray_shardtalk_images_total"
    exported_when(images, before.get(images, 0.0) + 3)
    now = exported_when("ray_shardtalk_rows_waiting", 0.0)
    new = {name: value - before.get(name, 0.0) for name, value in now.items()}
    assert new["ray_shardtalk_errors_total not_an_image"] == 1
    assert new["ray_shardtalk_image_bytes_total"] == sum(path.stat().st_size for path in folder.iterdir())
    assert all(new[f"ray_shardtalk_busy_seconds_total {stage}"] > 0 for stage in ("read", "decode", "caption", "write"))


def test_the_dashboard_asks_for_what_there_is() -> None:
    rays = "".join(path.read_text() for folder in dashboards_of_ray.__path__ for path in Path(folder).glob("*.py"))
    ours = {f"ray_{value}{suffix}" for value in vars(metrics).values() for suffix in ("", "_total")}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in re.findall(r"ray_\w+", target["expr"])}
    assert asked
    assert not {name for name in asked if name not in ours and name not in rays}


@pytest.mark.parametrize("name", ["IMAGES", "ERRORS", "IMAGE_BYTES", "BUSY_S", "ROWS_WAITING", "BATCH_IMAGES"])
def test_the_dashboard_shows_all_we_tell(name: str) -> None:
    assert f"ray_{getattr(metrics, name)}" in DASHBOARD.read_text()
