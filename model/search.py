"""From an image's embedding to words: greedy, beam and sampling, for a batch of images at once, on their device.

Every caption ends with END, whose log-probability counts; after `max_tokens` words nothing else can be said.
Images whose search is over leave the batch, so a short caption costs no more than itself.

Letters: B images still searched, K beams, T words, N rows, V vocabulary, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from model import neuraltalk2_search
from model.decoder import Decoder
from model.errors import OptionError
from model.vocabulary import END


@dataclass(frozen=True)
class Search:
    """How a caption is looked for.

    Args:
        method: "beam", "greedy" or "sample".
        beam_size: K; beam 1 is greedy.
        max_tokens: words a caption may have.
        length_normalization: the winner has the highest log_prob / num_tokens ** this; 0 ranks by log_prob alone.
        num_candidates: captions given per image, best first; at most `beam_size` of a beam, any number of samples.
        temperature: of sampling; below 1 sharpens.
        top_k: sample from the most probable words only, this many; 0 from all.
        top_p: sample from the smallest set of words that has this probability together.
        seed: of sampling. The same image and seed give the same captions, whatever its batch.
        beam_search: "standard", or "neuraltalk2" for its search as it was (`neuraltalk2_search`), beam or greedy: no
            length normalisation, UNK may be said, and no more tokens than the captions it learnt from had.

    Raises OptionError for a value out of range.
    """

    method: Literal["beam", "greedy", "sample"] = "beam"
    beam_size: int = 5
    max_tokens: int = 20
    length_normalization: float = 0.7
    num_candidates: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    beam_search: Literal["standard", "neuraltalk2"] = "standard"

    def __post_init__(self) -> None:
        most = {"beam": self.beam_size, "greedy": 1, "sample": self.num_candidates}
        if self.method not in most:
            raise OptionError(f"method is {self.method!r}; choose {', '.join(most)}")
        for name in ("beam_size", "max_tokens", "num_candidates"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_candidates > most[self.method]:
            raise OptionError(
                f"num_candidates is {self.num_candidates}; {self.method} gives at most {most[self.method]}"
            )
        if self.length_normalization < 0 or self.temperature <= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise OptionError("need length_normalization ≥ 0, temperature > 0, top_k ≥ 0 and 0 < top_p ≤ 1")
        if self.beam_search not in ("standard", "neuraltalk2"):
            raise OptionError(f"beam_search is {self.beam_search!r}; choose standard or neuraltalk2")
        if self.beam_search == "neuraltalk2" and self.method == "sample":
            raise OptionError("beam_search is neuraltalk2 and method is sample; choose beam or greedy")

    def __call__(
        self,
        decoder: Decoder,
        embeddings: torch.Tensor,
        *,
        image_seeds: torch.Tensor | None = None,
        unsayable: Sequence[int] = (),
    ) -> list[list[Hypothesis]]:
        """The candidates of each image, best first.

        Args:
            decoder: in evaluation mode.
            embeddings: (B, E) of the images.
            image_seeds: (B,) int64, a number that belongs to each image; only sampling uses it.
            unsayable: ids that no caption may have; what they would have had of the probability is lost.
        """
        with torch.inference_mode():
            if self.method == "sample":
                seeds = image_seeds if image_seeds is not None else torch.arange(len(embeddings))
                return _sample(self, decoder, embeddings, seeds.to(embeddings.device), unsayable)
            beams = self.beam_size if self.method == "beam" else 1
            if self.beam_search == "neuraltalk2":
                return _as_neuraltalk2(self, decoder, embeddings, beams=beams)
            return _beam(self, decoder, embeddings, unsayable, beams=beams)


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption."""

    words: list[int]
    """Ids, without END."""
    log_prob: float
    """Sum of the natural-log probabilities of its words and END."""
    ended: bool = True
    """Whether END was said; only neuraltalk2's search may do without."""

    @property
    def num_tokens(self) -> int:
        """Tokens that `log_prob` sums over."""
        return len(self.words) + self.ended


def _beam(
    search: Search, decoder: Decoder, embeddings: torch.Tensor, unsayable: Sequence[int], *, beams: int
) -> list[list[Hypothesis]]:
    """Keeps the best K captions of each image, finished or not; only the unfinished cost a step of the decoder."""
    device, k, steps = embeddings.device, beams, search.max_tokens + 1
    images = torch.arange(len(embeddings), device=device)  # (B,) the image of each row
    words = torch.full((len(embeddings), k, steps), END, device=device)
    sums = torch.full((len(embeddings), k), -torch.inf, device=device)  # of log-probabilities
    tokens = torch.ones(len(embeddings), k, device=device)  # that `sums` sums over; none yet, and 1 divides well
    live = torch.zeros(len(embeddings), k, dtype=torch.bool, device=device)
    sums[:, 0], live[:, 0] = 0.0, True  # the K beams begin as one
    state = decoder.start(embeddings)  # holds the live beams only, in the order of `live`
    results: list[list[Hypothesis]] = [[] for _ in range(len(embeddings))]

    for step in range(steps):
        log_probs, state = decoder.step(words[live][:, step - 1], state)  # at step 0 the last place holds START
        _forbid(log_probs, unsayable, only_end=step == steps - 1)
        size = log_probs.shape[1]
        grown = log_probs.new_full((*live.shape, size), -torch.inf)  # (B, K, V)
        grown[:, :, END] = 0.0  # what is finished stays as it is
        grown[live] = log_probs
        grown += sums.unsqueeze(2)
        tokens = torch.where(live, step + 1.0, tokens)
        scores, where = (grown / tokens.unsqueeze(2) ** search.length_normalization).flatten(1).topk(k)
        beam, word = where // size, where % size
        row = (live.flatten().cumsum(0) - 1).view_as(live).gather(1, beam)  # of `state`
        live = live.gather(1, beam) & (word != END)
        sums, tokens = grown.flatten(1).gather(1, where), tokens.gather(1, beam)
        words = words.gather(1, beam.unsqueeze(2).expand_as(words))
        words[:, :, step] = word

        over = _over(search, scores, sums, live)
        for i in over.nonzero().flatten().tolist():
            results[images[i]] = _finished(search, words[i], sums[i], tokens[i], live[i])
        going = ~over
        images, words, sums, tokens, live = (
            images[going],
            words[going],
            sums[going],
            tokens[going],
            live[going],
        )
        row = row[going][live]
        if not len(row):
            break
        state = (state[0][:, row], state[1][:, row])
    return results


def _forbid(log_probs: torch.Tensor, unsayable: Sequence[int], *, only_end: bool) -> None:
    """Takes the probability of words away, in place: (N, V)."""
    log_probs[:, list(unsayable)] = -torch.inf
    if only_end:
        log_probs[:, END + 1 :] = -torch.inf


def _over(search: Search, scores: torch.Tensor, sums: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
    """(B,) whether no live beam can still enter the best `num_candidates` finished ones. All arguments (B, K)."""
    finished = scores.masked_fill(live, -torch.inf).topk(search.num_candidates).values[:, -1]
    # Log-probabilities only fall, and no caption has more than max_tokens + 1 tokens.
    attainable = sums.masked_fill(~live, -torch.inf).amax(1) / (search.max_tokens + 1) ** search.length_normalization
    over: torch.Tensor = (finished >= attainable) | ~live.any(1)
    return over


def _finished(
    search: Search, words: torch.Tensor, sums: torch.Tensor, tokens: torch.Tensor, live: torch.Tensor
) -> list[Hypothesis]:
    """The best candidates of one image, whose beams are in the order of their scores: (K, T), (K,), (K,), (K,)."""
    ready = (~live & sums.isfinite()).nonzero().flatten()[: search.num_candidates].tolist()
    return [Hypothesis(words[i, : int(tokens[i]) - 1].tolist(), float(sums[i])) for i in ready]


def _as_neuraltalk2(
    search: Search, decoder: Decoder, embeddings: torch.Tensor, *, beams: int
) -> list[list[Hypothesis]]:
    length = min(search.max_tokens, decoder.max_tokens or search.max_tokens)
    return [
        [Hypothesis(said.words, said.log_prob, said.ended) for said in captions[: search.num_candidates]]
        for captions in neuraltalk2_search.captions(decoder, embeddings, beams=beams, length=length)
    ]


def _sample(
    search: Search,
    decoder: Decoder,
    embeddings: torch.Tensor,
    image_seeds: torch.Tensor,
    unsayable: Sequence[int],
) -> list[list[Hypothesis]]:
    """Draws `num_candidates` captions per image by the Gumbel-max trick; ranked by score."""
    each, steps = search.num_candidates, search.max_tokens + 1
    copies = torch.arange(each, device=embeddings.device)
    # Mixed once more, for `_gumbel` counts steps on from a seed: it must not run into the next copy's.
    seeds = _mixed(_mixed(image_seeds + search.seed).unsqueeze(1) + copies).flatten()  # (B × each,)
    rows = torch.arange(len(seeds), device=embeddings.device)  # the captions still being spoken
    words = torch.full((len(seeds), steps), END, device=embeddings.device)
    sums = torch.zeros(len(seeds), device=embeddings.device)
    state = decoder.start(embeddings.repeat_interleave(each, dim=0))
    for step in range(steps):
        log_probs, state = decoder.step(words[rows, step - 1], state)
        _forbid(log_probs, unsayable, only_end=step == steps - 1)
        word = (_truncated(search, log_probs) + _gumbel(seeds[rows], step, log_probs.shape[1])).argmax(1)
        sums[rows] += log_probs.gather(1, word.unsqueeze(1)).squeeze(1)
        words[rows, step] = word
        going = word != END
        rows, state = rows[going], (state[0][:, going], state[1][:, going])
        if not len(rows):
            break
    lengths = (words == END).int().argmax(1).tolist()
    drawn = [Hypothesis(ids[:n], total) for ids, n, total in zip(words.tolist(), lengths, sums.tolist(), strict=True)]
    groups = (drawn[i : i + each] for i in range(0, len(drawn), each))
    return [sorted(group, key=lambda h: -h.log_prob / h.num_tokens**search.length_normalization) for group in groups]


def _truncated(search: Search, log_probs: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) to sample from: temperature, then the `top_k` and `top_p` most probable words only."""
    logits = log_probs / search.temperature
    if search.top_k:
        least = logits.topk(min(search.top_k, logits.shape[1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if search.top_p < 1.0:
        ordered, order = logits.sort(dim=1, descending=True)
        probability = ordered.softmax(1)
        beyond = probability.cumsum(1) - probability >= search.top_p  # of the words before it
        logits = logits.masked_fill(beyond.gather(1, order.argsort(1)), -torch.inf)
    return logits


def _gumbel(seeds: torch.Tensor, step: int, size: int) -> torch.Tensor:
    """Gumbel noise (N, V) that depends on each row's seed and the step alone, not on the row's neighbours."""
    counters = _mixed(seeds + step).unsqueeze(1) + torch.arange(size, device=seeds.device)
    uniform = ((_mixed(counters) >> 11) & ((1 << 52) - 1)).double().add_(0.5) * 2.0**-52
    return -(-uniform.log()).log().float()


def _mixed(numbers: torch.Tensor) -> torch.Tensor:
    """int64 → int64, well scrambled: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = numbers + -0x61C8864680B583EB
    mixed = (mixed ^ ((mixed >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    mixed = (mixed ^ ((mixed >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return mixed ^ ((mixed >> 31) & 0x1FFFFFFFF)
