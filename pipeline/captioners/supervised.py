"""A captioner in a process of its own, which is ended when it takes too long, and started again.

The process is `python -m` this module. Both sides send pickled messages: first the captioner and its device, answered
by an error or None; then a batch each, answered by its results or an error.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

import torch

from model.device import keep_freed_memory
from model.errors import ModelError
from pipeline.captioners.failures import CaptionerDiedError, DescribedError, describe
from pipeline.captioners.protocol import Caption, ImageCaptioner
from pipeline.errors import CaptionerError, PipelineError

CLOSE_S = 10.0
"""Seconds that a captioner has to close."""
PARENT_POLL_S = 2.0
"""Seconds between two looks whether the process that gives the batches is there."""


class SupervisedCaptioner(ImageCaptioner):
    """A captioner whose calls end after some time, whatever it does meanwhile.

    Args:
        captioner: the captioner; it is not loaded in this process.
        timeout_s: maximum duration of a call of `caption`, in seconds. Loading may take longer.
    """

    def __init__(self, captioner: ImageCaptioner, timeout_s: float) -> None:
        self._captioner, self._timeout_s = captioner, timeout_s
        self.inputs, self.columns = captioner.inputs, captioner.columns
        self._device = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def identity(self) -> str:
        """As that of the captioner."""
        return self._captioner.identity

    @property
    def name(self) -> str:
        """As that of the captioner."""
        return self._captioner.name

    def load(self, device: str) -> None:
        """Starts the process. Raises CaptionerError if the captioner cannot be loaded there."""
        self._device = device
        ours, theirs = Pipe()
        with theirs:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            command = [sys.executable, "-m", __spec__.name, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        self._connection = ours
        try:
            self._send((self._captioner, device))
            error = ours.recv()
        except (OSError, EOFError) as died:
            raise CaptionerError(f"captioner {self.name}: its process ended while it was loaded") from died
        if error is not None:
            self.close()
            raise error

    def caption(self, images: Any) -> Sequence[Caption | Exception]:
        """As `ImageCaptioner.caption`.

        Raises DescribedError for what it raised, or no answer in time, CaptionerDiedError if its process died; the next
        call starts it again.
        """
        if self._connection is None:
            self.load(self._device)
        assert self._connection
        try:
            self._send(images)
            if not self._connection.poll(self._timeout_s):
                self._kill()
                raise DescribedError(f"TimeoutError: no captions within {self._timeout_s:g} s")
            found = self._connection.recv()
        except (OSError, EOFError) as died:
            code = self._kill()
            raise CaptionerDiedError(f"the process of the captioner ended with code {code}") from died
        if isinstance(found, Exception):
            raise found
        results: Sequence[Caption | Exception] = found
        return results

    def close(self) -> None:
        """Lets the captioner close, and ends its process."""
        if self._connection is None or self._process is None:
            return
        self._connection.close()  # the process sees the end of its input
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None

    def settings(self) -> dict[str, Any]:
        """As those of the captioner."""
        return self._captioner.settings()

    def _send(self, message: Any) -> None:
        assert self._connection
        self._connection.send_bytes(_pickled(message))

    def _kill(self) -> int:
        """Ends the process at once; returns its exit code."""
        assert self._connection and self._process
        code = self._process.poll()
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._connection = None
        return self._process.returncode if code is None else code


def _pickled(message: Any) -> bytes:
    """Pickles a message; in a worker of Ray, whose modules may have come by value, as Ray does."""
    ray = sys.modules.get("ray")
    found: bytes = ray.cloudpickle.dumps(message) if ray else pickle.dumps(message)
    return found


def serve(connection: Connection) -> None:
    """Loads the captioner that arrives, then answers each batch, until the other side closes."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side is interrupted, and decides
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    captioner, device = connection.recv()
    try:
        captioner.load(device)
    except (ModelError, PipelineError) as error:
        connection.send(error)
        return
    except Exception as error:  # noqa: BLE001 - the captioner may be anybody's code
        failure = f"captioner {captioner.name} cannot be loaded on the device {device}: {describe(error)}"
        connection.send(CaptionerError(failure))
        return
    connection.send(None)
    with contextlib.suppress(EOFError):
        while True:
            connection.send_bytes(_answer(captioner, connection.recv()))
    captioner.close()


def _end_with(parent: int) -> None:
    """Ends this process, which may hang, soon after its parent has ended."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


def _answer(captioner: ImageCaptioner, images: Any) -> bytes:
    """Returns the pickled results for a batch, or the exception in their place."""
    try:
        found = captioner.caption(images)
        if isinstance(found, list | tuple):
            found = [DescribedError(describe(one)) if _is_foreign(one) else one for one in found]
        return pickle.dumps(found)
    except CaptionerError as error:
        return pickle.dumps(CaptionerError(str(error)))
    except torch.OutOfMemoryError:
        pass
    except Exception as error:  # noqa: BLE001 - the captioner may be anybody's code
        return pickle.dumps(DescribedError(describe(error)))
    torch.cuda.empty_cache()  # outside of the handler, where the exception no longer holds tensors
    return pickle.dumps(torch.OutOfMemoryError("the device has not enough memory"))


def _is_foreign(result: Any) -> bool:
    return isinstance(result, Exception) and not isinstance(result, CaptionerError)


if __name__ == "__main__":
    # By its name, since what is pickled in `__main__` belongs to no module.
    from pipeline.captioners.supervised import serve as serve_by_name

    with Connection(int(sys.argv[1])) as opened:
        serve_by_name(opened)
