"""From an image's embedding to words: greedy, beam and sampling, for a batch of images at once, on their device.

Every caption ends with END, whose log-probability counts; after `max_tokens` words nothing else can be said.
Images whose search is over leave the batch, so a short caption costs no more than itself. `Search` says what there is;
`beam_search`, `sampling` and `neuraltalk2_search` do it, under the rules of `constraints`.

Letters: B images, K beams, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from model.decoding import neuraltalk2_search
from model.decoding.beam_search import BeamSearch
from model.decoding.hypothesis import Hypothesis
from model.decoding.logits_processors import LogitsProcessor
from model.decoding.sampling import Sampling
from model.errors import OptionError
from model.nn.decoder import Decoder
from model.nn.decoder_state import DecoderState, StepDecoder

__all__ = ["Hypothesis", "Search"]


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
        no_repeat_ngram: n; no n words in a row come twice in a caption; 0 for no such rule. Not in neuraltalk2's.
        no_immediate_repeat: no word comes twice in a row.
        no_bad_endings: no caption ends in a word that it should go on after (`Vocabulary.forbidden_final_ids`).
        min_tokens: words a caption has at least.
        groups: of a beam, which share its K; each chooses other words than those before it.
        diversity: what a word loses for each beam of the groups before that just chose it, in nats.
        token_probs: whether to tell the probability of each word, too; it costs another step of the decoder per word.
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
    no_repeat_ngram: int = 2
    no_immediate_repeat: bool = False
    no_bad_endings: bool = False
    min_tokens: int = 0
    groups: int = 1
    diversity: float = 0.5
    token_probs: bool = False
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
        if not 0 <= self.min_tokens <= self.max_tokens or self.no_repeat_ngram < 0 or self.diversity < 0:
            raise OptionError("need 0 ≤ min_tokens ≤ max_tokens, no_repeat_ngram ≥ 0 and diversity ≥ 0")
        self._check_groups()
        self._check_neuraltalk2()

    def _check_groups(self) -> None:
        if self.groups == 1:
            return
        if self.groups < 1 or self.beam_size % self.groups:
            raise OptionError(
                f"groups is {self.groups} and beam_size {self.beam_size}; groups must be a divisor of beam_size"
            )
        if self.method != "beam":
            raise OptionError(f"groups is {self.groups} and method {self.method}; only a beam has groups")

    def _check_neuraltalk2(self) -> None:
        if self.beam_search == "standard":
            return
        if self.beam_search != "neuraltalk2":
            raise OptionError(f"beam_search is {self.beam_search!r}; choose standard or neuraltalk2")
        if self.method == "sample":
            raise OptionError("beam_search is neuraltalk2 and method is sample; choose beam or greedy")
        beyond = ("no_immediate_repeat", "no_bad_endings", "min_tokens")
        asked = [name for name in beyond if getattr(self, name)] + ["groups"] * (self.groups > 1)
        if self.no_repeat_ngram not in (0, Search.no_repeat_ngram):  # the default may not have been asked for
            asked.append("no_repeat_ngram")
        if asked:
            raise OptionError(f"beam_search is neuraltalk2, which knows no {asked[0]}; choose standard")

    def __call__(
        self,
        decoder: Decoder,
        embeddings: torch.Tensor,
        *,
        image_seeds: torch.Tensor | None = None,
        suppressed_ids: Sequence[int] = (),
        forbidden_final_ids: Sequence[int] = (),
    ) -> list[list[Hypothesis]]:
        """The candidates of each image, best first.

        Args:
            decoder: in evaluation mode.
            embeddings: (B, E) of the images.
            image_seeds: (B,) int64, a number that belongs to each image; only sampling uses it.
            suppressed_ids: ids that no caption contains; their probability is not redistributed.
            forbidden_final_ids: ids that no caption ends in, with `no_bad_endings`.
        """
        with torch.inference_mode():
            state = decoder.initial_state(embeddings)
        return self.from_state(
            decoder,
            state,
            image_seeds=image_seeds,
            suppressed_ids=suppressed_ids,
            forbidden_final_ids=forbidden_final_ids,
        )

    def from_state(
        self,
        speaker: StepDecoder,
        state: DecoderState,
        *,
        image_seeds: torch.Tensor | None = None,
        suppressed_ids: Sequence[int] = (),
        forbidden_final_ids: Sequence[int] = (),
    ) -> list[list[Hypothesis]]:
        """As `__call__`, for whoever speaks, after the images.

        Args:
            state: of B images.
        """
        beams = self.beam_size if self.method == "beam" else 1
        with torch.inference_mode():
            if self.beam_search == "neuraltalk2":
                return self._as_neuraltalk2(speaker, state, beams)
            logits_processor = LogitsProcessor(
                suppressed_ids=suppressed_ids,
                forbidden_final_ids=forbidden_final_ids if self.no_bad_endings else (),
                no_immediate_repeat=self.no_immediate_repeat,
                no_repeat_ngram=self.no_repeat_ngram,
                min_tokens=self.min_tokens,
                max_tokens=self.max_tokens,
                device=state.device,
            )
            if self.method == "sample":
                sampling = Sampling(
                    self.num_candidates,
                    self.max_tokens,
                    self.length_normalization,
                    temperature=self.temperature,
                    top_k=self.top_k,
                    top_p=self.top_p,
                    seed=self.seed,
                )
                seeds = image_seeds if image_seeds is not None else torch.arange(len(state))
                return sampling(speaker, state, logits_processor, seeds.to(state.device))
            beam = BeamSearch(
                beams,
                self.max_tokens,
                self.length_normalization,
                num_candidates=self.num_candidates,
                num_beam_groups=self.groups,
                diversity_penalty=self.diversity,
            )
            return beam(speaker, state, logits_processor)

    def _as_neuraltalk2(self, speaker: StepDecoder, state: DecoderState, beams: int) -> list[list[Hypothesis]]:
        length = min(self.max_tokens, speaker.max_tokens or self.max_tokens)
        return [
            [Hypothesis(said.words, said.log_prob, said.ended) for said in captions[: self.num_candidates]]
            for captions in neuraltalk2_search.search(speaker, state, beams=beams, length=length)
        ]
