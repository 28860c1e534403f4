"""`shardtalk train`: from prepared shards to a captioner.

Stages in one process: the language model on features of the frozen CNN, computed once; the whole network; then, if
asked for, on captions that the network draws itself, rewarded by CIDEr-D. After each epoch the validation split is
captioned and scored; the best captioner by CIDEr is kept in `best/`.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from configs.train import StageConfig, TrainConfig
from jobs import cli
from model import checkpoint
from model.augmentation import crop_and_flip
from model.device import autocast, choose_device, choose_dtype, keep_freed_memory
from model.encoder import load_cnn
from model.network import Architecture, Network
from model.preprocessing import Preprocessing
from model.search import Search
from model.self_critical import advantages, draw
from model.training import Trainer, pad
from model.vocabulary import END
from pipeline.diversity import diversity
from pipeline.evaluation import score
from pipeline.ingest import Example, pixel_batches, read_split, read_vocabulary
from pipeline.scores import CiderD
from pipeline.storage import Folder

HISTORY = "history.jsonl"
VALIDATION_BATCH_IMAGES = 64
STANDARDIZED_IMAGES = 2_000
"""Of the training images, drawn to know the mean and deviation of the CNN's features."""

Inputs = dict[str, torch.Tensor]
"""Arguments of `Trainer.step`, by name."""


def run(config: TrainConfig) -> int:
    """Trains; returns the exit code."""
    keep_freed_memory()
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory() as scratch:
        training = _Run(config, Path(scratch))
        training.stage("language", config.language)
        training.stage("finetune", config.finetune)
        training.stage("self_critical", config.self_critical)
    return 0


class _Run:
    """The network, its data, and the best score so far. `scratch` is a folder of this machine."""

    def __init__(self, config: TrainConfig, scratch: Path) -> None:
        shape = config.network
        self.config = config
        self.output, self.best = Folder(config.output), scratch / "best"
        self.history = self.output.read(HISTORY).decode() if self.output.exists(HISTORY) else ""
        self.best_score = -1.0
        self.train, self.val = read_split(config.data, "train"), read_split(config.data, "val")
        self.vocabulary = read_vocabulary(config.data)
        self.preprocessing = Preprocessing(image_size=shape.image_size, resize_size=shape.image_size)
        self.architecture = Architecture(
            vocabulary_size=self.vocabulary.size,
            cnn=shape.cnn,
            embedding_size=shape.embedding_size,
            hidden_size=shape.hidden_size,
            layers=shape.layers,
        )
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.dtype, self.device)
        self.random = torch.Generator().manual_seed(config.seed)
        self.network = self.architecture.build()
        load_cnn(self.network.encoder.cnn, shape.cnn, shape.weights)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        some = torch.randperm(len(self.train), generator=self.random)[:STANDARDIZED_IMAGES].tolist()
        self.network.encoder.standardize(self._features([self.train[position] for position in some]).to(self.device))

    def stage(self, name: str, stage: StageConfig) -> None:
        """Trains for the stage's epochs. The next stage goes on from the best captioner so far."""
        if not stage.epochs:
            return
        frozen = stage.cnn_learning_rate == 0.0 and stage.smallest_crop == 1.0
        features = self._features(self.train) if frozen else None
        trainer = Trainer(
            self.network,
            steps=stage.epochs * -(-len(self.train) // stage.batch_images),
            learning_rate=stage.learning_rate,
            cnn_learning_rate=stage.cnn_learning_rate,
            weight_decay=stage.weight_decay,
            warmup_steps=stage.warmup_steps,
            clip_norm=stage.clip_norm,
            label_smoothing=stage.label_smoothing,
            dropout=stage.dropout,
            average_decay=stage.average_decay,
            dtype=self.dtype,
            word_weights=self._word_weights(),
            foretelling_weight=stage.foretelling_weight,
        )
        words = self._drawn_and_rewarded(stage) if stage.samples_per_image else self._written
        for epoch in range(1, stage.epochs + 1):
            started = time.monotonic()
            losses = [
                trainer.step(**words(batch, inputs), **inputs)
                for batch, inputs in self._batches(stage, features, f"{name} {epoch}/{stage.epochs}")
            ]
            report = {
                "stage": name,
                "epoch": epoch,
                "loss": sum(losses) / len(losses),
                "images_per_s": len(self.train) / (time.monotonic() - started),
                **self._validate(trainer.averaged),
            }
            self._record(report, trainer.averaged)
        best, _, _ = checkpoint.load(self.best)
        self.network.load_state_dict(best.state_dict())

    def _batches(
        self, stage: StageConfig, features: torch.Tensor | None, title: str
    ) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Every image once, in random order: positions, and the `features` or `images` of the network."""

        order = torch.randperm(len(self.train), generator=self.random).tolist()
        size = stage.batch_images
        if features is not None:
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                yield batch, {"features": features[batch].to(self.device)}
            return
        batches = pixel_batches(self.train, order, self.preprocessing, batch_images=size, threads=self.config.threads)
        for positions, pixels in tqdm(batches, title, total=-(-len(order) // size), unit="step", disable=None):
            images = self.preprocessing.normalize(pixels.to(self.device, non_blocking=True))
            if stage.smallest_crop < 1.0:
                images = crop_and_flip(images, smallest=stage.smallest_crop, generator=self.random)
            yield list(positions), {"images": images}

    def _written(self, batch: list[int], _: Inputs) -> Inputs:
        """People's captions of the images."""
        return self._padded([ids for position in batch for ids in self._some(self.train[position].ids)])

    def _drawn_and_rewarded(self, stage: StageConfig) -> Callable[[list[int], Inputs], Inputs]:
        """Captions that the network draws for the images, weighted by how much better they are than the others."""
        reward = CiderD([[[*ids, END] for ids in example.ids] for example in self.train])

        def words(batch: list[int], inputs: Inputs) -> Inputs:
            captions = draw(
                self.network,
                captions_per_image=stage.samples_per_image,
                max_tokens=self.config.max_tokens,
                seed=int(torch.randint(2**40, (), generator=self.random)),
                unsayable=self.vocabulary.unsayable,
                **inputs,
            )
            places = [position for position in batch for _ in range(stage.samples_per_image)]
            rewards = torch.tensor([reward(i, [*ids, END]) for i, ids in zip(places, captions, strict=True)])
            weights = advantages(rewards.view(len(batch), -1)).to(self.device)
            return self._padded(captions) | {"caption_weights": weights}

        return words

    def _padded(self, captions: list[list[int]]) -> Inputs:
        words, lengths = pad(captions)
        return {"words": words.to(self.device), "lengths": lengths.to(self.device)}

    def _word_weights(self) -> torch.Tensor:
        """(V,): the rarer a word is among the images, the more; nothing for END and UNK."""
        images = Counter(word for example in self.train for word in {w for ids in example.ids for w in ids})
        weights = torch.zeros(self.vocabulary.size)
        for word, count in images.items():
            weights[word] = math.log(len(self.train) / count)
        weights[self.vocabulary.unsayable] = 0.0
        return weights.to(self.device)

    def _some(self, captions: list[list[int]]) -> list[list[int]]:
        """`captions_per_image` of an image's captions: different ones as far as there are enough."""
        wanted = self.config.captions_per_image
        order = torch.randperm(len(captions), generator=self.random).tolist()
        return [captions[order[i % len(order)]] for i in range(wanted)]

    def _features(self, examples: list[Example], network: Network | None = None) -> torch.Tensor:
        """The CNN's features (images, F) in float32, on the CPU."""
        encoder = (network or self.network).encoder.eval()
        batches = pixel_batches(
            examples,
            range(len(examples)),
            self.preprocessing,
            batch_images=VALIDATION_BATCH_IMAGES,
            threads=self.config.threads,
        )
        total = -(-len(examples) // VALIDATION_BATCH_IMAGES)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            return torch.cat(
                [
                    encoder.features(self.preprocessing.normalize(pixels.to(self.device))).float().cpu()
                    for _, pixels in tqdm(batches, "features", total=total, unit="batch", leave=False, disable=None)
                ]
            ).clone()

    def _validate(self, network: Network) -> dict[str, float]:
        """Captions the validation split; scores on this project's own tokens, as training needs no Java."""
        search = Search(beam_size=self.config.beam_size)
        with torch.inference_mode():
            embeddings = network.encoder.project(self._features(self.val, network).to(self.device))
            found = search(network.decoder, embeddings, unsayable=self.vocabulary.unsayable)
        captions = {
            example.image_id: self.vocabulary.decode(candidates[0].words)
            for example, candidates in zip(self.val, found, strict=True)
        }
        references = {example.image_id: example.captions for example in self.val}
        scores = score(captions, references).totals
        said = diversity(captions.values())
        return {
            "cider": scores["CIDEr"],
            "bleu_4": scores["Bleu_4"],
            "rouge_l": scores["ROUGE_L"],
            "words": said.mean_words,
            "vocabulary": said.vocabulary,
            "distinct_captions": said.distinct_captions,
            "broken_endings": said.broken_endings,
        }

    def _record(self, report: dict[str, Any], network: Network) -> None:
        """Adds a line to the history, and keeps the captioner if it is the best so far."""
        line = json.dumps(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in report.items()}
        )
        self.history += line + "\n"
        self.output.write(HISTORY, self.history.encode())
        sys.stdout.write(line + "\n")
        if report["cider"] > self.best_score:
            self.best_score = report["cider"]
            checkpoint.save(
                self.best,
                network,
                architecture=self.architecture,
                vocabulary=self.vocabulary,
                preprocessing=self.preprocessing,
                dtype=getattr(torch, self.config.weights_dtype),
                provenance={"trained_by": "shardtalk train", "config": asdict(self.config)},
                scores={"val": report},
            )
            for name in reversed(checkpoint.FILES):  # the configuration last: with it a captioner is whole
                self.output.write(f"best/{name}", (self.best / name).read_bytes())


if __name__ == "__main__":
    sys.exit(cli.main(["train", *sys.argv[1:]]))
