"""Builds the batches of a training stage: reference captions (teacher forcing) or sampled ones (self-critical)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from configs.search import Search
from configs.stage import Stage
from configs.train import TrainConfig
from model.nn.captioning_network import Network
from model.training.self_critical import advantages, sample_captions
from model.training.train_step import Batch, pad_captions
from model.vocabulary import END, Vocabulary
from pipeline.datasets.prepared_split import ImageIndices, PreparedSplit
from pipeline.evaluation.cider import CiderD
from pipeline.training.step_inputs import Inputs

BatchBuilder = Callable[[ImageIndices, Inputs, np.random.Generator], Batch]
"""Builds the batch of a training step from indices of images in the training split and the images themselves."""


def batch_builder(
    stage: Stage, config: TrainConfig, network: Network, split: PreparedSplit, vocabulary: Vocabulary
) -> BatchBuilder:
    """Returns the builder of batches that a stage asks for: self-critical if it samples captions."""
    if not stage.samples_per_image:
        return teacher_forcing_batches(split, config.captions_per_image)
    return self_critical_batches(
        network,
        split,
        vocabulary,
        samples_per_image=stage.samples_per_image,
        temperature=stage.temperature,
        max_tokens=config.max_tokens,
        baseline=stage.baseline,
        captions_per_image=config.captions_per_image,
        cross_entropy_weight=stage.cross_entropy_weight,
    )


def teacher_forcing_batches(split: PreparedSplit, captions_per_image: int) -> BatchBuilder:
    """Returns a builder of batches with `captions_per_image` reference captions, distinct if there are enough."""

    def build_batch(indices: ImageIndices, inputs: Inputs, random: np.random.Generator) -> Batch:
        return _batch(_sample_captions(split, indices, captions_per_image, random), inputs)

    return build_batch


def _sample_captions(
    split: PreparedSplit, indices: ImageIndices, captions_per_image: int, random: np.random.Generator
) -> list[list[list[int]]]:
    """Draws reference captions of each image at random."""
    chosen = []
    for number in indices.tolist():
        ids = split.ids(number)
        order = random.permutation(len(ids))
        chosen.append([ids[order[i % len(ids)]] for i in range(captions_per_image)])
    return chosen


def self_critical_batches(
    network: Network,
    split: PreparedSplit,
    vocabulary: Vocabulary,
    *,
    samples_per_image: int,
    temperature: float,
    max_tokens: int,
    baseline: str,
    captions_per_image: int,
    cross_entropy_weight: float,
) -> BatchBuilder:
    """Returns a builder of batches with captions sampled from the network, weighted by CIDEr-D minus a baseline.

    Args:
        captions_per_image, cross_entropy_weight: number and loss weight of reference captions that are added; 0
            leaves them out.
        baseline: reward that is subtracted: "others" for the mean of an image's other samples, "greedy" for that of
            the greedy caption (Rennie et al., 2017).
    """
    reward = CiderD([[*ids, END] for ids in split.ids(number)] for number in range(len(split)))

    def rewards(indices: ImageIndices, captions: Sequence[list[list[int]]]) -> torch.Tensor:
        return torch.tensor(
            [
                reward([[*words, END] for words in sample], [[*ids, END] for ids in split.ids(number)])
                for number, sample in zip(indices.tolist(), captions, strict=True)
            ]
        )

    def sample(search: Search, inputs: Inputs) -> list[list[list[int]]]:
        return sample_captions(network, search, suppressed_ids=vocabulary.suppressed_ids, **inputs)

    # Without rules, so that captions are sampled with the probability that the gradient assumes.
    greedy = Search(method="greedy", max_tokens=max_tokens, no_repeat_ngram_size=0)
    sampling = replace(greedy, method="sample", num_candidates=samples_per_image, temperature=temperature)

    def build_batch(indices: ImageIndices, inputs: Inputs, random: np.random.Generator) -> Batch:
        captions = sample(replace(sampling, seed=int(random.integers(2**40))), inputs)
        against = rewards(indices, sample(greedy, inputs)) if baseline == "greedy" else None
        weights = advantages(rewards(indices, captions), against).view(len(indices), -1)
        temperatures = torch.full_like(weights, temperature)
        if cross_entropy_weight:
            people = _sample_captions(split, indices, captions_per_image, random)
            captions = [mine + theirs for mine, theirs in zip(captions, people, strict=True)]
            theirs = weights.new_full((len(indices), captions_per_image), cross_entropy_weight)
            weights = torch.cat([weights, theirs], dim=1)
            temperatures = torch.cat([temperatures, torch.ones_like(theirs)], dim=1)
        batch = _batch(captions, inputs)
        return replace(
            batch,
            caption_weights=weights.flatten().to(batch.words.device),
            caption_temperatures=temperatures.flatten().to(batch.words.device),
        )

    return build_batch


def _batch(captions: Sequence[Sequence[Sequence[int]]], inputs: Inputs) -> Batch:
    """Pads captions to a batch; all images must have the same number of captions."""
    words, lengths = pad_captions([ids for of_image in captions for ids in of_image])
    device = next(iter(inputs.values())).device
    return Batch(words.to(device), lengths.to(device), **inputs)


def word_weights(split: PreparedSplit, vocabulary: Vocabulary) -> torch.Tensor:
    """Returns weights (V,) that grow with the rarity of a word among the images; 0 for END and UNK."""
    images = Counter(word for n in range(len(split)) for word in {word for ids in split.ids(n) for word in ids})
    weights = torch.zeros(vocabulary.size)
    for word, count in images.items():
        weights[word] = math.log(len(split) / count)
    weights[vocabulary.suppressed_ids] = 0.0
    return weights
