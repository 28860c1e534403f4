"""Sends a captioner to the workers of a Ray cluster, with the code of it that they cannot import."""

from __future__ import annotations

import ray.cloudpickle

from pipeline.captioners.failures import describe
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.captioners.registry import modules_beside
from pipeline.errors import CaptionerError


def make_shippable(captioner: ImageCaptioner) -> None:
    """Has the modules beside the captioner's own pickled with it. Raises CaptionerError if it cannot be pickled.

    Workers may lack the working directory that it was imported from: a Ray that this job did not start took its
    `runtime_env` before there was a captioner, and tasks cannot add local files to it.
    """
    for module in modules_beside(captioner):
        ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    try:
        ray.cloudpickle.dumps(captioner)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise CaptionerError(
            f"captioner {captioner.name} cannot be sent to workers: {describe(error)}; "
            "what cannot be pickled belongs into its method `load`"
        ) from error
