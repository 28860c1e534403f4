"""Captions and scores the validation split on all workers together."""

from __future__ import annotations

import torch

from configs.search import Search
from model.decoding.search import generate_from_state
from model.nn.captioning_network import Network
from model.nn.frozen_decoder import frozen_decoder
from model.training.train_step import Batch, pad_captions, summed_loss
from model.vocabulary import Vocabulary
from pipeline.datasets.prepared_split import PreparedSplit
from pipeline.evaluation.diversity import diversity
from pipeline.evaluation.metrics import score
from pipeline.training.data_loader import worker_share
from pipeline.training.distributed import WorldInfo

BATCH_IMAGES = 128


def validate(  # noqa: PLR0917
    network: Network,
    split: PreparedSplit,
    features: torch.Tensor,
    vocabulary: Vocabulary,
    search: Search,
    world: WorldInfo,
) -> dict[str, float]:
    """Computes scores of the split, on this project's own tokens, so that training needs no Java.

    Args:
        network: the network, in evaluation mode.
        features: `Encoder.features` of this worker's `worker_share` of the split.

    Returns:
        The same on all workers: `val_loss` in nats per token, `cider`, `bleu_4`, `rouge_l`, and measures of diversity.
    """
    mine = worker_share(split, world.rank, world.count).tolist()
    decoder = frozen_decoder(network.decoder, dtype=torch.float32)
    captions, loss, tokens = dict[str, str](), 0.0, 0
    for start in range(0, len(mine), BATCH_IMAGES):
        indices, some = mine[start : start + BATCH_IMAGES], features[start : start + BATCH_IMAGES].to(world.device)
        with torch.inference_mode():
            state = network.decoder.initial_state(network.encoder.project(some))
            found = generate_from_state(search, decoder, state, suppressed_ids=vocabulary.suppressed_ids)
            total, counted = _loss(network, split, indices, some)
        loss, tokens = loss + total, tokens + counted
        for number, candidates in zip(indices, found, strict=True):
            captions[split.image_ids[number]] = vocabulary.decode(candidates[0].words)
    return world.broadcast(_scores(split, world.all_gather((captions, loss, tokens)), first=world.is_main))


def _loss(network: Network, split: PreparedSplit, indices: list[int], features: torch.Tensor) -> tuple[float, int]:
    """Returns the loss summed over all captions of the images, and their number of tokens."""
    captions = [ids for number in indices for ids in split.ids(number)]
    each = torch.tensor([len(split.ids(number)) for number in indices], device=features.device)
    words, lengths = (part.to(features.device) for part in pad_captions(captions))
    total, tokens = summed_loss(network, Batch(words, lengths, features=features.repeat_interleave(each, dim=0)))
    return float(total), int(tokens)


def _scores(split: PreparedSplit, parts: list[tuple[dict[str, str], float, int]], *, first: bool) -> dict[str, float]:
    if not first:
        return {}
    captions = {name: caption for found, _, _ in parts for name, caption in found.items()}
    references = {name: list(written) for name, written in zip(split.image_ids, split.captions, strict=True)}
    scores, measures = score(captions, references).totals, diversity(captions.values())
    return {
        "val_loss": sum(loss for _, loss, _ in parts) / sum(tokens for _, _, tokens in parts),
        "cider": scores["CIDEr"],
        "bleu_4": scores["Bleu_4"],
        "rouge_l": scores["ROUGE_L"],
        "words": measures.mean_words,
        "vocabulary": measures.vocabulary,
        "distinct_captions": measures.distinct_captions,
        "broken_endings": measures.broken_endings,
    }
