"""`shardtalk VERB …`: the verbs, and what every one of them does about options, mistakes and interruption.

Exit codes: 0 done, 1 failed, 2 usage or configuration error (one line, no traceback), 3 interrupted and resumable.
A verb's module is imported only once its options are known to be right: torch takes seconds to import.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

FAILED, USAGE, INTERRUPTED = 1, 2, 3


@dataclass(frozen=True)
class Verb:
    """A command and where it lives; `jobs.<name>`, its dashes as underscores, has its `run(config) -> exit code`."""

    summary: str
    config: str
    """Module and class of its configuration."""
    positional: str = ""
    """The option that needs no name."""
    metavar: str = "INPUT"
    """How it is shown."""
    required: bool = True
    """Whether it must be given."""


VERBS = {
    "caption": Verb("caption images: folders, files, tar shards", "configs.caption:CaptionConfig", "inputs"),
    "verify": Verb("prove that every key is in an output once", "configs.verify:VerifyConfig", "paths", "OUT [INPUT]"),
    "status": Verb("say how far a job is", "configs.status:StatusConfig", "output", "OUT"),
    "gallery": Verb("write a page to look at an output", "configs.gallery:GalleryConfig", "output", "OUT"),
    "prepare": Verb("make training shards of captioned images", "configs.prepare:PrepareConfig", "captions", "JSON"),
    "train": Verb("train a captioner on prepared shards", "configs.train:TrainConfig"),
    "evaluate": Verb(
        "score captions against people's", "configs.evaluate:EvaluateConfig", "captions", "OUT", required=False
    ),
    "import-neuraltalk2": Verb(
        "make a captioner of a neuraltalk2 checkpoint",
        "configs.import_neuraltalk2:ImportNeuraltalk2Config",
        "checkpoint",
        "T7",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one verb. Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if arguments else USAGE
    if name not in VERBS:
        sys.stderr.write(f"shardtalk: error: there is no verb {name!r}; choose {', '.join(VERBS)}\n")
        return USAGE
    return _run(name, VERBS[name], arguments[1:])


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "".join(f"  {name:{width}}  {verb.summary}\n" for name, verb in VERBS.items())
    return (
        f"usage: shardtalk VERB …\n\nCaptions images in bulk.\n\n{verbs}\n`shardtalk VERB --help` lists the options.\n"
    )


def _run(name: str, verb: Verb, arguments: list[str]) -> int:
    from configs.parsing import ConfigError, parse

    module, _, attribute = verb.config.partition(":")
    config = parse(
        getattr(importlib.import_module(module), attribute),
        arguments,
        prog=f"shardtalk {name}",
        positional=verb.positional,
        metavar=verb.metavar,
        required=verb.required,
    )
    from cluster.connect import ClusterError
    from model.errors import ModelError
    from pipeline.errors import PipelineError, TrainingError, WriteError

    try:
        code: int = importlib.import_module(f"jobs.{name.replace('-', '_')}").run(config)
    except (ConfigError, ClusterError, ModelError, PipelineError) as error:
        sys.stderr.write(f"shardtalk {name}: error: {error}\n")
        return USAGE
    except (WriteError, TrainingError) as error:
        sys.stderr.write(f"shardtalk {name}: failed: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write(f"shardtalk {name}: interrupted\n")
        return INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
