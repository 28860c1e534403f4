"""The folder of a training run, local or in a store.

best/           the captioner with the best score
latest/         the current captioner, and training.pt, from which training is resumed
epochs/         the captioners of the last epochs, on request
history.jsonl   losses and scores, a line for each epoch
curve.png       a plot of the history
tensorboard/    the history and the loss of each step, for TensorBoard
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from matplotlib.figure import Figure
from tensorboardX import SummaryWriter

from model.captioner import checkpoint
from model.nn.captioning_network import Network
from model.vision.preprocessing import Preprocessing
from pipeline.errors import OutputError
from pipeline.storage.folder import Folder
from pipeline.training import feature_cache

STATE = "latest/training.pt"
HISTORY = "history.jsonl"
CURVE = "curve.png"


class RunDirectory:
    """The folder of a run, to which only the main worker writes. A context manager that closes the writer.

    Args:
        url: path or URL of the folder.
        captioner: arguments of `checkpoint.save` besides network, preprocessing and scores.
    """

    def __init__(self, url: str, **captioner: Any) -> None:
        self.folder = Folder(url)
        self._captioner = captioner
        self._scratch = tempfile.TemporaryDirectory()
        self._board = SummaryWriter(str(Path(self._scratch.name, "tensorboard")))

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()
        self._scratch.cleanup()

    def state(self) -> dict[str, Any] | None:
        """Reads the state that `save_state` wrote last; None for a new folder. Raises OutputError if it is damaged."""
        if not self.folder.exists(STATE):
            return None
        try:
            state: dict[str, Any] = torch.load(
                io.BytesIO(self.folder.read(STATE)), map_location="cpu", weights_only=True
            )
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            raise OutputError(f"{self.folder.url}/{STATE} is damaged: {error}; choose another output") from error
        return state

    def save_state(
        self, state: Mapping[str, Any], network: Network, preprocessing: Preprocessing, scores: Mapping[str, Any]
    ) -> None:
        """Replaces `latest/`; writes the state last, because training resumes from it alone."""
        self.save("latest", network, preprocessing, scores)
        with self.folder.writer(STATE) as file:
            torch.save(dict(state), file)

    def save(self, name: str, network: Network, preprocessing: Preprocessing, scores: Mapping[str, Any]) -> None:
        """Writes the captioner into a subfolder; its configuration last, which marks it as complete."""
        directory = Path(self._scratch.name, "captioner")
        kept = {"preprocessing": preprocessing, "scores": {"val": dict(scores)}, **self._captioner}
        checkpoint.save(directory, network, **kept)
        for file in reversed(checkpoint.FILES):
            self.folder.write(f"{name}/{file}", (directory / file).read_bytes())

    def save_epoch(
        self, name: str, network: Network, preprocessing: Preprocessing, scores: Mapping[str, Any], *, keep: int
    ) -> None:
        """Adds a captioner to `epochs/`, and deletes the oldest ones beyond `keep`."""
        self.save(f"epochs/{name}", network, preprocessing, scores)
        for old in self.folder.folders("epochs")[:-keep]:
            self.folder.remove_all(f"epochs/{old}")

    def record(self, history: str) -> None:
        """Writes the history, as JSON lines, its plot, and the files for TensorBoard."""
        self.folder.write(HISTORY, history.encode())
        lines = [json.loads(line) for line in history.splitlines()]
        self.folder.write(CURVE, _picture(lines))
        step = lines[-1]["step"]
        for name, value in lines[-1].items():
            if isinstance(value, float | int) and name not in ("step", "epoch"):
                self._board.add_scalar(f"epoch/{name}", value, step)
        self._board.flush()
        for path in Path(self._scratch.name, "tensorboard").iterdir():
            self.folder.write(f"tensorboard/{path.name}", path.read_bytes())

    def log_step(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values of a step for TensorBoard; they are written by the next `record`."""
        for name, value in values.items():
            self._board.add_scalar(f"step/{name}", value, step)

    def remove_features(self) -> None:
        """Deletes the features that `FeatureCache` stored in the folder."""
        self.folder.remove_all(feature_cache.FOLDER)


def _picture(lines: list[dict[str, Any]]) -> bytes:
    """Plots losses and scores by step as a PNG."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for axes, names in ((losses, ("loss", "val_loss")), (scores, ("cider", "bleu_4", "rouge_l"))):
        for name in names:
            axes.plot([line["step"] for line in lines], [line[name] for line in lines], label=name, marker=".")
        for line, following in pairwise(lines):
            if line["stage"] != following["stage"]:
                axes.axvline(line["step"], color="grey", linewidth=0.8, linestyle=":")
        axes.set_xlabel("step")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    losses.set_ylabel("nats per token")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
