"""A plain training loop as baseline: one process, all data in memory, a loop around the network.

`python -m benchmarks.plain_training DATA {images,features} STEPS THREADS` prints {"images_per_s"}, without the first
steps. It has the network, batches, crops, loss, AdamW and clipping of the trainer's defaults, but no weight average,
schedule, progress, validation or checkpoint. Keeps freed memory, as an expert's would (docs/decisions/0005).
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from model.device import keep_freed_memory
from model.nn.captioning_network import Architecture
from model.training.train_step import Batch, Objective, pad_captions, summed_loss
from model.vision.augmentation import crop_and_flip
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import read_split, read_vocabulary
from pipeline.training.data_loader import in_order, pixel_batches, worker_share
from pipeline.training.objectives import word_weights

BATCH_IMAGES, WARM_STEPS = 16, 3


def main(data: str, kind: str, steps: str, threads: str) -> None:
    """Trains on images or on their features."""
    keep_freed_memory()
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    split, vocabulary, preprocessing = read_split(data, "train"), read_vocabulary(data), Preprocessing(resize_size=224)
    order = in_order(split, worker_share(split, 0, 1), 64)
    pixels = torch.cat([batch for _, batch in pixel_batches(split, order, preprocessing, num_decode_threads=4)])
    network = Architecture(vocabulary_size=vocabulary.size).build().to(memory_format=torch.channels_last)
    network.encoder.cnn.requires_grad_(kind == "images")
    features = torch.randn(len(split), network.encoder.feature_size)
    optimizer = torch.optim.AdamW([parameter for parameter in network.parameters() if parameter.requires_grad], lr=1e-4)
    objective = Objective(label_smoothing=0.05, word_weights=word_weights(split, vocabulary), bag_of_words_weight=6.0)
    generator, started = torch.Generator().manual_seed(0), 0.0
    for step in range(int(steps)):
        if step == WARM_STEPS:
            started = time.perf_counter()
        chosen = np.random.default_rng(step).permutation(len(split))[:BATCH_IMAGES]
        captions = [ids for number in chosen for ids in split.ids(number)]
        network.train()
        network.encoder.cnn.eval()
        inputs = {"features": features[chosen]}
        if kind == "images":
            images = preprocessing.normalize(pixels[chosen])
            inputs = {"images": crop_and_flip(images, min_scale=0.8, generator=generator)}
        total, tokens = summed_loss(network, Batch(*pad_captions(captions), **inputs), objective)
        optimizer.zero_grad()
        (total / tokens).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    print(json.dumps({"images_per_s": (int(steps) - WARM_STEPS) * BATCH_IMAGES / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
