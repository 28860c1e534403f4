"""`shardtalk COMMAND …`: the table of commands, and their common handling of options, errors and signals.

Exit codes: 0 done, 1 failed (network and disk faults, too), 2 usage or configuration error, 3 interrupted and
resumable. All but 0 say why in a line, without a traceback, unless it is a bug of ours.
A command's module is imported only once its options are known to be right: torch takes seconds to import.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import sys
from typing import Any

from configs.loading.command import Command
from jobs import __version__
from jobs.console import messages, startup_signals

FAILED, USAGE, INTERRUPTED = 1, 2, startup_signals.INTERRUPTED
_FAULTS = frozenset(
    [
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN),
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EHOSTUNREACH),
        *(errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET),
    ]
)
"""Error numbers of disk and network faults, which no change of the command line would repair."""

_OPTIONAL = frozenset({"matplotlib", "pycocoevalcap", "tensorboardX", "webdataset"})
"""Packages of the extras `train` and `evaluate`."""


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "caption",
            "caption images: folders, files, tar and Parquet shards, lists",
            "caption:CaptionConfig",
            positional="inputs",
            metavar="INPUT…",
            main=("output", "captioner", "runner", "search.method", "search.beam_size", "config"),
            examples=(
                "photos/ --output captions",
                "'s3://bucket/{0000..0099}.tar' --output s3://bucket/captions --runner ray",
            ),
        ),
        Command(
            "verify",
            "prove that every image of the input is in an output exactly once",
            "verify:VerifyConfig",
            positional="paths",
            metavar="OUT [INPUT…]",
            examples=("captions", "captions photos/"),
        ),
        Command(
            "status",
            "show the progress of a job",
            "status:StatusConfig",
            positional="output",
            metavar="OUT",
            main=("json", "watch", "interval_s"),
            examples=("captions", "captions --watch"),
        ),
        Command(
            "gallery",
            "write an HTML page of an output",
            "gallery:GalleryConfig",
            positional="output",
            metavar="OUT",
            main=("page", "max_images", "thumbnail_size", "seed"),
            examples=("captions", "s3://bucket/captions --page gallery.html"),
        ),
        Command(
            "export",
            "write captions for other programs: CSV, text files, tars, …",
            "export:ExportConfig",
            positional="paths",
            metavar="OUT DEST",
            main=("to", "min_log_prob_per_token", "errors", "review", "extension"),
            examples=(
                "captions captions.csv --to csv",
                "captions photos --to txt",
                "s3://bucket/captions s3://bucket/captioned --to webdataset --min_log_prob_per_token=-1.5",
            ),
        ),
        Command(
            "prepare",
            "write training shards of captioned images",
            "prepare:PrepareConfig",
            positional="captions",
            metavar="JSON",
            main=("output", "images_root", "num_val", "image_size", "word_count_threshold"),
            extra="train",
            examples=("captions.json --images_root photos --output data --num_val 1000",),
        ),
        Command(
            "train",
            "train a captioner on prepared shards",
            "train:TrainConfig",
            main=("data", "output", "config", "network.cnn", "start_from", "num_workers"),
            extra="train",
            examples=(
                "--data data --output run --network.cnn resnet50",
                "--config train-flickr8k.yaml --data data --output run --stages.finetune.epochs 3",
            ),
        ),
        Command(
            "evaluate",
            "score captions against reference captions",
            "evaluate:EvaluateConfig",
            positional="captions",
            metavar="OUT",
            required=False,
            main=("references", "data", "split", "captioner", "output"),
            extra="evaluate",
            examples=("captions --references captions.json", "--captioner run/best --data data --split val"),
        ),
        Command(
            "compare",
            "compare the captions of two outputs",
            "compare:CompareConfig",
            positional="paths",
            metavar="A B",
            main=("references", "page", "output"),
            extra="evaluate",
            examples=(
                "captions captions-of-mine --page compared.html",
                "captions captions-of-mine --references captions.json",
            ),
        ),
        Command(
            "captioners",
            "list the captioners that ship, or those in folders",
            "captioners:CaptionersConfig",
            positional="folders",
            metavar="FOLDER…",
            required=False,
            main=("json",),
            examples=("run", "flickr8k-mobilenet-v2 --json"),
        ),
        Command(
            "import-neuraltalk2",
            "convert a neuraltalk2 checkpoint to a captioner",
            "import_neuraltalk2:ImportNeuraltalk2Config",
            positional="checkpoint",
            metavar="T7",
            main=("output", "overwrite"),
            examples=("model.t7 --output coco",),
        ),
        Command(
            "completion",
            "print a script that completes commands and options in a shell",
            "completion:CompletionConfig",
            positional="shell",
            metavar="SHELL",
            examples=("bash",),
        ),
    )
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns the exit code."""
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
    if name == "help":
        name, arguments = (arguments[0], ["--help"]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if is_given else USAGE
    if name == "--version":
        sys.stdout.write(f"shardtalk {__version__}\n")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, [*COMMANDS, "--version", "--help"], n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(COMMANDS)}"
        messages.logger_of("shardtalk").error(f"error: there is no command {name!r}; {hint}")
        return USAGE
    return _run(COMMANDS[name], arguments)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "".join(f"  {name:{width}}  {command.summary}\n" for name, command in COMMANDS.items())
    return (
        "usage: shardtalk COMMAND …\n\n"
        "Captions images in bulk: every image becomes a caption or a typed error, exactly once.\n\n"
        f"{commands}\n"
        "`shardtalk COMMAND --help` describes a command, `shardtalk --version` tells the version.\n"
    )


def config_class(command: Command) -> type[Any]:
    """The dataclass of a command's options."""
    import configs

    module, _, attribute = command.config.partition(":")
    found: type[Any] = getattr(importlib.import_module(f".{module}", configs.__name__), attribute)
    return found


def _run(command: Command, arguments: list[str]) -> int:
    name = f"shardtalk {command.name}"
    with startup_signals.handlers_restored():
        startup_signals.exit_on_signals(name)
        from configs.errors import ConfigError
        from configs.loading.parsing import parse

        try:
            config = parse(config_class(command), arguments, command)
        except ConfigError as error:
            messages.logger_of(name).error(f"error: {error}")
            return USAGE
        from cluster.connect import ClusterError
        from model.errors import ModelError
        from pipeline.errors import PipelineError, TrainingError

        try:
            run = importlib.import_module(f".{command.name.replace('-', '_')}", __package__).run
            startup_signals.interrupt_on_signals()
            return int(run(config))
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _OPTIONAL:
                raise
            missing = f"{package} is not installed; pip install 'shardtalk[{command.extra}]'"
            messages.logger_of(name).error(f"error: {missing}")
            return USAGE
        except (ConfigError, ClusterError, ModelError, PipelineError) as error:
            fault = isinstance(error, PipelineError) and _is_fault(error.__cause__)
            messages.logger_of(name).error(f"{'failed' if fault else 'error'}: {error}")
            return FAILED if fault else USAGE
        except (OSError, TrainingError) as error:
            return _fail(name, error)
        except KeyboardInterrupt:
            messages.logger_of(name).error("interrupted")
            return INTERRUPTED


def _is_fault(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and (isinstance(error, ConnectionError | TimeoutError) or error.errno in _FAULTS)


if __name__ == "__main__":
    sys.exit(main())
