"""PyTorch's DataLoader: two worker processes decode, this process captions.

`python -m benchmarks.rivals.data_loader FOLDER CAPTIONER OUTPUT eager|ours`
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.rivals.networks import BATCH_IMAGES, load, open_pixels
from model.captioner import checkpoint
from model.vision.preprocessing import Preprocessing

WORKERS = 2


class Photos(Dataset[torch.Tensor]):
    """The decoded photos of these paths."""

    def __init__(self, paths: list[str], preprocessing: Preprocessing) -> None:
        self._paths, self._preprocessing = paths, preprocessing

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(open_pixels(self._paths[index], self._preprocessing))


def main(folder: str, captioner: str, output: str, network: str) -> None:
    """Captions the folder's JPEGs."""
    paths = sorted(map(str, Path(folder).glob("*.jpg")))
    photos = Photos(paths, checkpoint.load_preprocessing(Path(captioner)))
    batches = iter(DataLoader(photos, batch_size=BATCH_IMAGES, num_workers=WORKERS))  # decodes from here on
    caption = load(network, captioner)
    captions = [text for pixels in batches for text in caption(pixels.numpy())]
    pq.write_table(pa.table({"path": paths, "caption": captions}), output)


if __name__ == "__main__":
    main(*sys.argv[1:])
