"""Finds a captioner by what the user calls it, and makes it.

- `module:factory`, a class or function of a module that Python can import, also from the working directory
- a name that an installed package declares under the entry points `shardtalk.captioners`
- `hf:` and the directory or name of a Hugging Face model
- the directory, URL or name of one of Shardtalk's networks; several form an ensemble
"""

from __future__ import annotations

import importlib
import re
import sys
import sysconfig
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from configs.captioning import CaptioningOptions
from configs.rerank import Rerank
from configs.search import Search
from model.captioner import checkpoint
from pipeline.captioners.failures import describe
from pipeline.captioners.network_captioner import NetworkCaptioner
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.errors import CaptionerError
from pipeline.schema import CAPTIONED, ENCODED

HUGGING_FACE = "hf:"
"""What the name of a Hugging Face model begins with."""
ENTRY_POINTS = "shardtalk.captioners"
_FACTORY = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_OPTIONS_OF_NETWORKS = {"search": Search(), "rerank": Rerank(), "weights": [], "dtype": "auto", "compile_cnn": "auto"}
"""Options that only Shardtalk's own networks have, with their defaults."""

Factory = Callable[..., ImageCaptioner]


def build_captioner(options: CaptioningOptions) -> ImageCaptioner:
    """Makes the captioner that the options name. Loads no weights.

    Raises CaptionerError for one that cannot be made or declares what it may not, CheckpointError for the name of none.
    """
    for name in options.captioner:
        factory = _find_factory(name)
        if factory:
            _check_alone(name, options)
            return checked_captioner(name, _make(name, factory, options.captioner_arguments))
    if options.captioner_arguments:
        raise CaptionerError(
            f"captioner_args are for other captioners; {options.captioner[0]} takes --search and --dtype"
        )
    return NetworkCaptioner(
        options.captioner,
        options.search,
        weights=options.captioner_weights,
        rerank=options.rerank,
        dtype=options.dtype,
        compile_cnn=options.compile_cnn,
    )


def installed() -> list[EntryPoint]:
    """Returns the captioners that installed packages declare."""
    return sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name)


def _find_factory(name: str) -> Factory | None:
    """Returns the factory of a captioner; None for the name of a network, which has precedence."""
    if name.startswith(HUGGING_FACE):
        return partial(_transformers_captioner, name.removeprefix(HUGGING_FACE))
    if _FACTORY.fullmatch(name):
        return _imported(name)
    if (Path(name) / checkpoint.FILES[0]).is_file() or (checkpoint.ZOO / name).is_dir():
        return None
    found = next((each for each in installed() if each.name == name), None)
    return _imported(found.value) if found else None


def _transformers_captioner(name: str, **arguments: Any) -> ImageCaptioner:
    if find_spec("transformers") is None:
        raise CaptionerError("transformers is not installed; pip install 'shardtalk[transformers]'")
    from pipeline.captioners.transformers_captioner import TransformersCaptioner

    return TransformersCaptioner(name, **arguments)


def _imported(reference: str) -> Factory:
    """Imports `module:factory` as `python -m` would: from the working directory, too. Raises CaptionerError."""
    module_name, _, attributes = reference.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise CaptionerError(
                f"captioner {reference}: {module_name} needs {error.name}, which is not installed"
            ) from error
        raise CaptionerError(
            f"captioner {reference}: there is no module {error.name} in {Path.cwd()} or among what is installed"
        ) from error
    except Exception as error:
        raise CaptionerError(f"captioner {reference} cannot be imported: {describe(error)}") from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise CaptionerError(f"captioner {reference}: {module_name} has no {attributes}")
        found = getattr(found, attribute)
    if not callable(found):
        raise CaptionerError(f"captioner {reference} is a {type(found).__name__}; give a class or a function")
    factory: Factory = found
    return factory


def _make(name: str, factory: Factory, arguments: Mapping[str, Any]) -> Any:
    try:
        return factory(**arguments)
    except CaptionerError:
        raise
    except Exception as error:
        given = ", ".join(f"{key}={value!r:.40}" for key, value in arguments.items())
        raise CaptionerError(f"captioner {name} cannot be made with ({given}): {describe(error)}") from error


def _check_alone(name: str, options: CaptioningOptions) -> None:
    if len(options.captioner) > 1:
        raise CaptionerError(f"captioner {name} cannot be part of an ensemble; only Shardtalk's own networks can")
    for option, default in _OPTIONS_OF_NETWORKS.items():
        if getattr(options, option) != default:
            raise CaptionerError(f"{option} is an option of Shardtalk's own networks; {name} takes --captioner_args")


def checked_captioner(name: str, captioner: Any) -> ImageCaptioner:
    """Returns a captioner whose attributes are those of the protocol. Raises CaptionerError for any other object."""
    if not isinstance(captioner, ImageCaptioner):
        raise CaptionerError(f"captioner {name} made a {type(captioner).__name__}; it must be an ImageCaptioner")
    if not isinstance(captioner.identity, str) or not captioner.identity:
        raise CaptionerError(f"captioner {name} has the identity {captioner.identity!r:.80}; it must be a text")
    if not isinstance(captioner.columns, pa.Schema):
        raise CaptionerError(
            f"captioner {name} has the columns {captioner.columns!r:.80}; they must be a pyarrow.Schema"
        )
    names = captioner.columns.names
    if taken := [
        each for each in names if each in {*CAPTIONED.names, *ENCODED.names, "pixels"} or names.count(each) > 1
    ]:
        raise CaptionerError(f"captioner {name} declares the column {taken[0]!r}, which there is already")
    for field in captioner.columns:
        inner = field.type.value_type if pa.types.is_list(field.type) else field.type
        if not _is_plain(inner):
            raise CaptionerError(
                f"captioner {name} declares the column {field.name!r} as {field.type}; "
                "columns may hold booleans, numbers, texts, and lists of them"
            )
    return captioner


def _is_plain(kind: pa.DataType) -> bool:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return bool(is_number or pa.types.is_boolean(kind) or pa.types.is_string(kind))


def modules_beside(captioner: ImageCaptioner) -> list[ModuleType]:
    """Returns the modules imported from the folder that a captioner comes from; none if that holds installed code.

    They are what a worker on another machine lacks. Of a package, only the outermost is returned.
    """
    outermost = type(captioner).__module__.partition(".")[0]
    folder = _folder(sys.modules.get(outermost))
    installed_in = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if folder is None or outermost in _own_packages() or str(folder) in installed_in:
        return []
    beside = [module for name, module in list(sys.modules.items()) if "." not in name and _folder(module) == folder]
    return [module for module in beside if module.__name__ not in _own_packages()]


def _folder(module: ModuleType | None) -> Path | None:
    """Returns the folder from which a module was imported by its first name; None if there is none."""
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    if not file or getattr(module, "__name__", "") == "__main__":
        return None
    path = Path(file)
    return path.parents[1] if path.name == "__init__.py" else path.parent


def _own_packages() -> set[str]:
    """Returns the names of Shardtalk's own packages; in a wheel it has one."""
    own = __name__.partition(".")[0]
    return {own} if own == "shardtalk" else {"cluster", "configs", "jobs", "model", "pipeline", "shardtalk"}
