"""`shardtalk VERB …`: the verbs, and what every one of them does about options, mistakes and interruption.

Exit codes: 0 done, 1 failed (network and disk faults, too), 2 usage or configuration error, 3 interrupted and
resumable. All but 0 say why in a line, without a traceback, unless it is a bug of ours.
A verb's module is imported only once its options are known to be right: torch takes seconds to import.
"""

from __future__ import annotations

import errno
import importlib
import sys
from dataclasses import dataclass

from jobs.console import messages, startup_signals

FAILED, USAGE, INTERRUPTED = 1, 2, startup_signals.INTERRUPTED
_FAULTS = frozenset(
    [
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN),
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EHOSTUNREACH),
        *(errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET),
    ]
)
"""What nobody mends at the command line."""

_OPTIONAL = frozenset({"matplotlib", "pycocoevalcap", "tensorboardX", "webdataset"})
"""Packages of the extras `train` and `evaluate`."""


@dataclass(frozen=True)
class Verb:
    """A command and where it lives; `jobs.<name>`, its dashes as underscores, has its `run(config) -> exit code`."""

    summary: str
    config: str
    """Module of `configs` and class of its configuration."""
    positional: str = ""
    """The option that needs no name."""
    metavar: str = "INPUT"
    """How it is shown."""
    required: bool = True
    """Whether it must be given."""
    extra: str = ""
    """The extra of the package that it needs; "" for none."""


VERBS = {
    "caption": Verb("caption images: folders, files, tar shards", "caption:CaptionConfig", "inputs"),
    "verify": Verb("prove that every key is in an output once", "verify:VerifyConfig", "paths", "OUT [INPUT]"),
    "status": Verb("say how far a job is", "status:StatusConfig", "output", "OUT"),
    "gallery": Verb("write a page to look at an output", "gallery:GalleryConfig", "output", "OUT"),
    "prepare": Verb(
        "make training shards of captioned images", "prepare:PrepareConfig", "captions", "JSON", extra="train"
    ),
    "train": Verb("train a captioner on prepared shards", "train:TrainConfig", extra="train"),
    "evaluate": Verb(
        "score captions against people's",
        "evaluate:EvaluateConfig",
        "captions",
        "OUT",
        required=False,
        extra="evaluate",
    ),
    "import-neuraltalk2": Verb(
        "make a captioner of a neuraltalk2 checkpoint",
        "import_neuraltalk2:ImportNeuraltalk2Config",
        "checkpoint",
        "T7",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one verb. Returns the exit code."""
    messages.open_closed_streams()
    messages.show_on_stderr()
    arguments = sys.argv[1:] if argv is None else argv
    name = arguments[0] if arguments else "--help"
    try:
        code = _main(name, arguments[1:], is_given=bool(arguments))
    except SystemExit as ended:  # as the parser of options does
        code = ended.code if isinstance(ended.code, int) else FAILED
    except OSError as error:  # of help that nobody can read
        code = _fail(f"shardtalk {name}", error)
    try:
        messages.flush_stdout()
    except OSError as error:
        code = code or _fail(f"shardtalk {name}", error)
    return code


def _fail(command: str, error: BaseException) -> int:
    messages.logger_of(command).error(f"failed: {error}")
    return FAILED


def _main(name: str, arguments: list[str], *, is_given: bool) -> int:
    if name in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if is_given else USAGE
    if name not in VERBS:
        messages.logger_of("shardtalk").error(f"error: there is no verb {name!r}; choose {', '.join(VERBS)}")
        return USAGE
    return _run(name, VERBS[name], arguments)


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "".join(f"  {name:{width}}  {verb.summary}\n" for name, verb in VERBS.items())
    return (
        f"usage: shardtalk VERB …\n\nCaptions images in bulk.\n\n{verbs}\n`shardtalk VERB --help` lists the options.\n"
    )


def _run(name: str, verb: Verb, arguments: list[str]) -> int:
    command = f"shardtalk {name}"
    with startup_signals.handlers_restored():
        startup_signals.exit_on_signals(command)
        import configs
        from configs.errors import ConfigError
        from configs.parsing import parse

        module, _, attribute = verb.config.partition(":")
        config = parse(
            getattr(importlib.import_module(f".{module}", configs.__name__), attribute),
            arguments,
            prog=command,
            positional=verb.positional,
            metavar=verb.metavar,
            required=verb.required,
        )
        from cluster.connect import ClusterError
        from model.errors import ModelError
        from pipeline.errors import PipelineError, TrainingError

        try:
            run = importlib.import_module(f".{name.replace('-', '_')}", __package__).run
            startup_signals.interrupt_on_signals()
            return int(run(config))
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _OPTIONAL:
                raise
            missing = f"{package} is not installed; pip install 'shardtalk[{verb.extra}]'"
            messages.logger_of(command).error(f"error: {missing}")
            return USAGE
        except (ConfigError, ClusterError, ModelError, PipelineError) as error:
            fault = isinstance(error, PipelineError) and _is_fault(error.__cause__)
            messages.logger_of(command).error(f"{'failed' if fault else 'error'}: {error}")
            return FAILED if fault else USAGE
        except (OSError, TrainingError) as error:
            return _fail(command, error)
        except KeyboardInterrupt:
            messages.logger_of(command).error("interrupted")
            return INTERRUPTED


def _is_fault(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and (isinstance(error, ConnectionError | TimeoutError) or error.errno in _FAULTS)


if __name__ == "__main__":
    sys.exit(main())
