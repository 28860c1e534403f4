"""The exceptions of the pipeline.

PipelineError (a ValueError): a mistake that the user can fix; the command ends with one line
├── InputError    an input that is missing, empty, or of an unsupported format
├── OutputError   an output directory that belongs to something else
└── CaptionerError   a captioner that cannot be loaded or does not do what the protocol asks; stops the job
WriteError (an OSError): the output cannot be written now: a full disk, a store that does not answer
ChangedError (an OSError): a file was replaced after it was listed, or while it was read
TrainingError (a RuntimeError): training cannot go on
DataError: bad data inside the input; becomes a row with `error_code` (`pipeline.schema.ErrorCode`) and
    `error_message`, and the job goes on
"""

from __future__ import annotations

MAX_MESSAGE = 1000
"""Maximum number of characters in a row's error message: a parser may quote its whole input."""


class PipelineError(ValueError):
    """Base class for mistakes of the user; the message names the value, the reason and a remedy."""


class InputError(PipelineError):
    """An input that is missing, empty, or of an unsupported format."""


class OutputError(PipelineError):
    """An output directory that belongs to something else."""


class CaptionerError(PipelineError):
    """A captioner that cannot be loaded or does not do what its protocol asks. Captioners raise it to stop the job."""


class WriteError(OSError):
    """The output cannot be written now. What is committed stays, and the same command goes on from there."""


class ChangedError(OSError):
    """A file was replaced after it was listed or while it was read; its remaining bytes cannot be used."""


class TrainingError(RuntimeError):
    """Training cannot go on: it has diverged, or its workers die again and again."""


class DataError(Exception):
    """A shard, member or image that cannot be captioned.

    Args:
        code: one of `pipeline.schema.ErrorCode`.
        message: the problem, with a name or byte offset.
    """

    def __init__(self, code: str, message: str) -> None:
        message = message.encode("utf-8", "backslashreplace").decode()  # a parser may quote bytes that are not text
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
