"""The command that measures a GPU, on the CPU at its smallest scale."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import end_to_end, limits, suite, training, wheels
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.plan import ROWS, Row, limit_s
from benchmarks.gpu.results import RowResult

ROOT = Path(__file__).parents[2]
SMALLEST = 0.001
Figures = dict[str, float]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs the command; returns the exit code and the contents of results.json."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        usual = ["--device", "cpu", "--scale", SMALLEST, "--output", tmp_path / "out", "--scratch", tmp_path]
        code = command.main([str(argument) for argument in [*usual, *arguments]])
        return code, json.loads((tmp_path / "out" / "results.json").read_text())

    return run


def test_results_are_a_file_and_a_table(run: Callable[..., Any], tmp_path: Path) -> None:
    code, results = run("--only", "decode")
    assert code == 0
    (row,) = results["rows"]
    assert (row["row"], row["status"], row["notes"]) == ("decode", "measured", [])
    figures = {figure["name"]: figure["value"] for figure in row["figures"]}
    assert {f"decoding, {threads} threads" for threads in (1, 4, 16)} < set(figures)
    assert min(figures.values()) > 0
    assert results["machine"]["device"] and results["options"]["only"] == ["decode"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert all(name in table for name in figures)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}  # what else there was is gone


def test_rows_that_do_not_fit_the_budget_are_skipped(run: Callable[..., Any]) -> None:
    code, results = run("--budget_s", 20)
    assert code == 0
    assert [row["row"] for row in results["rows"]] == list(ROWS)
    assert {row["status"] for row in results["rows"]} == {"skipped"}
    assert "takes about" in results["rows"][0]["notes"][0]


def test_a_row_that_fails_or_is_stuck_leaves_the_others_their_time(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "strange.py").write_text(
        "import os, threading\n"
        "def broken(bench):\n    bench.figure('before', 1, 's')\n    raise KeyError('no such thing')\n"
        "def stuck(bench):\n    threading.Event().wait()\n"
        "def dead(bench):\n    os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "rows"))
    costs = {"stuck": 1, "broken": 95, "dead": 95}
    rows = {name: Row(f"strange:{name}", cost, "") for name, cost in costs.items()}
    monkeypatch.setattr(command, "ROWS", rows)
    code, results = run("--budget_s", 200)
    assert code == 1
    found = {row["row"]: row for row in results["rows"]}
    assert found["stuck"]["status"] == "incomplete"
    assert found["broken"]["status"] == found["dead"]["status"] == "failed"
    assert found["broken"]["figures"] == [{"name": "before", "value": 1.0, "unit": "s"}]
    assert "no such thing" in found["broken"]["notes"][0]
    assert "=== broken" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("costs", "left_s", "expected"),
    [([10], 9, 0), ([10], 25, 25), ([10, 5, 5], 25, 15), ([10, 20, 5], 25, 20), ([10, 5, 20], 25, 20)],
)
def test_a_row_may_overrun_as_far_as_no_other_needs(costs: list[float], left_s: float, expected: float) -> None:
    assert limit_s([Row("", cost, "") for cost in costs], left_s) == expected


def test_what_a_process_was_writing_as_it_was_ended_is_left_out() -> None:
    result = RowResult("x")
    result.add('{"name": "a", "value": 1.0, "unit": "s"}\n{"note": "b", "status": "failed"}\n{"name": "c", "val')
    result.update_status("incomplete", "d")
    assert ([figure["name"] for figure in result.figures], result.notes, result.status) == (["a"], ["b", "d"], "failed")


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., tuple[Figures, list[str]]]:
    """Runs a row in this process; returns its figures by name, and its notes."""

    def measured(row: Callable[[Bench], None], *, limit_s: float = 500.0) -> tuple[Figures, list[str]]:
        findings = tmp_path / "findings"
        row(Bench("cpu", SMALLEST, tmp_path, limit_s, findings))
        result = RowResult("row")
        result.add(findings.read_text())
        return {figure["name"]: figure["value"] for figure in result.figures}, result.notes

    return measured


def test_a_whole_job_is_measured(measured: Callable[..., Any]) -> None:
    figures, notes = measured(end_to_end.local)
    assert figures["images"] == 48 and min(figures.values()) > 0 and not notes
    assert figures["first rows after"] < figures["first commit after"]
    assert {"caption stage alone", "second half of the images", "share of the slower stage's"} < set(figures)


def test_the_cnn_is_measured_by_network_and_batch(
    measured: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NETWORKS", ("squeezenet1_1", "mobilenet_v3_small"))
    monkeypatch.setattr(limits, "BATCHES", (1024, 64))  # of which one is left at so small a scale
    figures, notes = measured(limits.cnn)
    assert set(figures) == {"squeezenet1_1, batch 1024", "mobilenet_v3_small, batch 1024"} and not notes
    assert min(figures.values()) > 0


def test_the_search_is_measured_by_method_and_batch(
    measured: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEARCH_BATCHES", (1024,))
    figures, notes = measured(limits.search)
    ways = [f"{method}, {way}" for method in ("greedy", "beam 5") for way in ("finished beams removed", "fixed shapes")]
    assert set(figures) == {f"{name}, batch 1024" for name in ("encoder", *ways)} and not notes


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "measured", "out of memory"),
        (RuntimeError("no engine\nat all"), "failed", "no engine"),
    ],
)
def test_a_batch_that_cannot_be_measured_does_not_end_the_others(
    error: RuntimeError, status: str, said: str, tmp_path: Path
) -> None:
    def fail() -> None:
        raise error

    bench, result = Bench("cpu", 1.0, tmp_path, 500.0, tmp_path / "findings"), RowResult("row")
    bench.attempt({"large": fail, "small": lambda: bench.figure("small", 1, "s")})
    result.add((tmp_path / "findings").read_text())
    assert (result.status, result.notes) == (status, [f"large: {said}"])
    assert [figure["name"] for figure in result.figures] == ["small"]


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    Bench("cpu", 1.0, tmp_path, 0.0, tmp_path / "findings").attempt({"one": lambda: None, "two": lambda: None})
    assert json.loads((tmp_path / "findings").read_text()) == {
        "note": "no time was left for one; two",
        "status": "incomplete",
    }


def test_training_is_measured(measured: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "NETWORKS", ("squeezenet1_1",))
    figures, notes = measured(lambda bench: (training.finetuning(bench), training.self_critical(bench)))
    assert {f"squeezenet1_1, {what}" for what in ("batch 128", "from shards", "batch 128, a step")} <= set(figures)
    assert min(figures.values()) > 0 and not notes
    assert figures["squeezenet1_1, share of drawing and rewards"] < 1


def test_the_tests_of_the_device_pass_on_the_cpu(measured: Callable[..., Any]) -> None:
    figures, notes = measured(suite.marked)
    assert figures["passed"] > 0 and figures["failed"] == 0 and not notes


def wheel(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "answer = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    records = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for member, text in {**files, f"{info}/RECORD": records}.items():
            file.writestr(member, text)
    return path


def test_wheels_are_installed_and_those_in_parts_are_joined(tmp_path: Path) -> None:
    folder, site = tmp_path / "wheels", tmp_path / "site"
    wheel(folder, "small")
    for name, parts in (("halved", 2), ("lost", 1)):
        path = wheel(folder, name)
        data = path.read_bytes()
        for i in range(parts):
            (folder / f"{path.name}.{i:02}").write_bytes(data[i * len(data) // 2 : (i + 1) * len(data) // 2])
        path.unlink()
    assert wheels.install(folder, site) == ["lost-1.0-py3-none-any.whl"]
    assert {path.stem for path in site.glob("*.py")} == {"small", "halved"}


@pytest.mark.parametrize(("name", "said"), [("", "there are no wheels"), ("x-1-cp27-cp27m-win32.whl", "not a support")])
def test_wheels_that_are_none_are_a_mistake(
    name: str, said: str, run: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wheels").mkdir()
    if name:
        (tmp_path / "wheels" / name).touch()
    with pytest.raises(SystemExit) as ended:
        run("--wheels", tmp_path / "wheels")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_documentation_has_a_line_for_each_row() -> None:
    section = (ROOT / "docs" / "speed.md").read_text().partition("## On a GPU")[2].partition("\n## ")[0]
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == list(ROWS)
