"""Options of captioning, which `shardtalk caption` and `shardtalk evaluate` share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from configs.errors import ConfigError
from configs.rerank import Rerank, check_reranking
from configs.search import Search

CompileCnn = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class LocalConfig:
    """The local runner."""

    num_threads: int = 0
    """Number of cores to decode and caption on; with a GPU, number of threads that decode for it. 0: OMP_NUM_THREADS,
    or else all cores."""


@dataclass(frozen=True)
class RayConfig:
    """The Ray runner."""

    address: str = ""
    """Address of the Ray cluster. Empty: RAY_ADDRESS, or else Ray is started on this machine."""
    min_actors: int = 0
    """Minimum number of captioner processes. The pool grows from it to max_actors with the work. 0: max_actors, or one
    per GPU, or per CPU without GPUs, that the cluster has when the job starts."""
    max_actors: int = 0
    """Maximum number of captioner processes. 0: as many as the cluster has room for, also on nodes that join while the
    job runs."""
    num_gpus: float = -1.0
    """GPUs per captioner process; a fraction shares a GPU. -1: 1 where the cluster has GPUs, otherwise 0."""
    num_cpus: float = 0.9
    """CPUs per captioner process. Below 1, room is left for the tasks that read; above 1, a captioner computes with as
    many threads."""


def normalized_weights(weights: Sequence[float], captioners: Sequence[str]) -> list[float]:
    """Returns the weight of each captioner, with a sum of 1; without weights, equal ones. Raises ConfigError."""
    given = list(weights) or [1.0] * len(captioners)
    if len(given) != len(captioners) or not all(0.0 < weight < math.inf for weight in given):
        shown = ",".join(f"{weight:g}" for weight in given)
        raise ConfigError(f"weights is {shown}; need one above 0 for each of {len(captioners)} captioners")
    return [weight / sum(given) for weight in given]


def _arguments(given: str | dict[str, Any]) -> dict[str, Any]:
    import yaml

    if isinstance(given, dict):
        return given
    if not given.strip():
        return {}
    try:
        is_file = given.endswith((".yaml", ".yml"))
        found = yaml.safe_load(Path(given).read_text(encoding="utf-8") if is_file else given)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"captioner_args cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"captioner_args is {given!r:.80}; it must be YAML of names and values: '{{name: value}}'")
    return found


@dataclass(frozen=True, kw_only=True)
class CaptioningOptions:
    """The captioners, the search, and the runner that executes them."""

    captioner: list[str] = field(default_factory=lambda: ["flickr8k-mobilenet-v2"])
    """Directory, URL or name of the captioner, which a cluster's workers must be able to reach; module:factory, a
    captioner of your own, importable from the working directory; or hf:NAME, a directory or name of a Hugging Face
    model. Given more than once, captioners form an ensemble and must be Shardtalk's networks with the same
    vocabulary."""
    captioner_args: str | dict[str, Any] = ""
    """Keyword arguments of a captioner of your own, in YAML, such as '{prompt: Describe it.}', or a YAML file of
    them."""
    weights: list[float] = field(default_factory=list)
    """Weights of the captioners of an ensemble, such as 0.7,0.3. Empty: equal weights."""
    captioner_timeout_s: float = 0.0
    """Seconds that the captioner may take for a batch. After them it is started again, and the image at which it hangs
    is found and becomes an error, captioner_failed. It then runs in a process of its own, whose crashes cost no more
    than an image either. 0: no limit."""
    runner: Literal["auto", "local", "ray"] = "auto"
    """local runs in this process, ray uses Ray Data. auto is ray if a cluster is connected or RAY_ADDRESS is set,
    otherwise local."""
    search: Search = field(default_factory=Search)
    """The search for captions."""
    rerank: Rerank = field(default_factory=Rerank)
    """The order of the candidates."""
    device: str = "auto"
    """Device of the captioner, such as cpu or cuda. auto is cuda if there is one, otherwise cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of matrix products. auto is float32 on the CPU and a 16-bit type on cuda."""
    compile_cnn: CompileCnn = "auto"
    """Compile the CNN with torch.compile, which takes a minute and makes it faster on a GPU: auto does so there, after
    four minutes of the CNN's work. In 16 bits, rounding may then differ."""
    batch_size: int = 0
    """Number of images captioned together. 0: on cuda found by trial in a job of many images, or else 256; 32 on the
    CPU."""
    local: LocalConfig = field(default_factory=LocalConfig)
    """The local runner."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The Ray runner."""

    @property
    def captioner_weights(self) -> list[float]:
        """The weight of each captioner, with a sum of 1."""
        return normalized_weights(self.weights, self.captioner)

    @property
    def captioner_arguments(self) -> dict[str, Any]:
        """`captioner_args` as a dictionary. Raises ConfigError for what is none."""
        return _arguments(self.captioner_args)

    def captioning_options(self) -> dict[str, Any]:
        """Returns these options by name, without those of a subclass."""
        return {each.name: getattr(self, each.name) for each in fields(CaptioningOptions)}

    def __post_init__(self) -> None:
        normalized_weights(self.weights, self.captioner)
        check_reranking(self.rerank, self.search)
        _arguments(self.captioner_args)
        if not 0.0 <= self.captioner_timeout_s < math.inf:
            raise ConfigError(f"captioner_timeout_s is {self.captioner_timeout_s}; it must be 0 or more")
        if self.batch_size < 0 or self.local.num_threads < 0:
            raise ConfigError("need batch_size ≥ 0 and local.num_threads ≥ 0")
        if self.ray.min_actors < 0 or self.ray.max_actors < 0 or self.ray.num_cpus < 0:
            raise ConfigError("need ray.min_actors ≥ 0, ray.max_actors ≥ 0 and ray.num_cpus ≥ 0")
