"""What can go wrong with input and output.

PipelineError (a ValueError): the user's to mend; the command ends with one line
├── InputError    an input that is missing, empty, or of a form we do not read
└── OutputError   an output directory that belongs to something else
WriteError (an OSError): the output cannot be written now: a full disk, a store that does not answer
ChangedError (an OSError): a file is another than it was when it was listed, or when reading it began
TrainingError (a RuntimeError): training cannot go on
DataError: bad data inside the input; becomes a row with `error_code` and `error_message`, and the job goes on
"""

from __future__ import annotations

MAX_MESSAGE = 1000
"""Characters of a row's error message: a parser may quote all of what it read."""


class PipelineError(ValueError):
    """The base of the user's mistakes: the value, why it cannot be used, what to try."""


class InputError(PipelineError):
    """An input that is missing, empty, or of a form we do not read."""


class OutputError(PipelineError):
    """An output directory that belongs to something else."""


class WriteError(OSError):
    """The output cannot be written now. What is committed stays, and the same command goes on from there."""


class ChangedError(OSError):
    """A file is another than it was when it was listed, or when reading it began. What is left of it makes no sense."""


class TrainingError(RuntimeError):
    """Training cannot go on: it has diverged, or its workers die again and again."""


class DataError(Exception):
    """A shard, member or image that cannot be captioned.

    Args:
        code: one of `pipeline.schema.ErrorCode`.
        message: what was found, with the name or byte offset.
    """

    def __init__(self, code: str, message: str) -> None:
        message = message.encode("utf-8", "backslashreplace").decode()  # a parser may quote what is no text
        super().__init__(message)
        self.code = code
        self.message = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
