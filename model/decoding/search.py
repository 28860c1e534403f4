"""Searches for captions given image embeddings: greedy, beam or sampling, for a batch of images on their device.

Every caption ends with END, whose log-probability counts; after `max_tokens` words nothing else can be said.
`configs.search.Search` has the options; `beam_search`, `static_beam_search`, `sampling` and `neuraltalk2_search` do the
work, under the rules of `logits_processors`.

Letters: B images, K beams, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from configs.search import Search
from model.decoding import neuraltalk2_search
from model.decoding.beam_search import BeamSearch
from model.decoding.hypothesis import Hypothesis
from model.decoding.logits_processors import LogitsProcessor
from model.decoding.sampling import Sampling
from model.decoding.static_beam_search import Run, StaticBeamSearch, run_directly
from model.nn.decoder import Decoder
from model.nn.decoder_state import DecoderState, StepDecoder


class CaptionSearch:
    """A search with the decoder and the rules that it is for, built once for any number of batches.

    Args:
        search: its options.
        decoder: in evaluation mode.
        device: the device of the decoder's states.
        suppressed_ids: ids that no caption contains; their probability is not redistributed.
        forbidden_final_ids: ids that no caption ends in, with `no_bad_endings`.
        run: how steps of a beam search in tensors of fixed shape are called, on devices that compute apart from the
            host; None for a beam search that removes finished beams, which costs less on a CPU.
    """

    def __init__(
        self,
        search: Search,
        decoder: StepDecoder,
        device: torch.device,
        *,
        suppressed_ids: Sequence[int] = (),
        forbidden_final_ids: Sequence[int] = (),
        run: Run | None = None,
    ) -> None:
        self._search, self._decoder = search, decoder
        if search.method == "neuraltalk2":
            return
        self._logits_processor = LogitsProcessor(
            suppressed_ids=suppressed_ids,
            forbidden_final_ids=forbidden_final_ids if search.no_bad_endings else (),
            no_immediate_repeat=search.no_immediate_repeat,
            no_repeat_ngram_size=search.no_repeat_ngram_size,
            min_tokens=search.min_tokens,
            max_tokens=search.max_tokens,
            device=device,
        )
        self._sampling = Sampling(
            search.num_candidates,
            search.max_tokens,
            search.length_penalty,
            temperature=search.temperature,
            top_k=search.top_k,
            top_p=search.top_p,
            seed=search.seed,
        )
        self._beam_search = BeamSearch(
            1 if search.method == "greedy" else search.beam_size,
            search.max_tokens,
            search.length_penalty,
            num_candidates=search.num_candidates,
            num_beam_groups=search.num_beam_groups,
            diversity_penalty=search.diversity_penalty,
        )
        self._static = run and StaticBeamSearch(self._beam_search, decoder, self._logits_processor, run)

    def __call__(self, state: DecoderState, image_seeds: torch.Tensor | None = None) -> list[list[Hypothesis]]:
        """Returns the candidates of each image, best first.

        Args:
            state: after B images, before START.
            image_seeds: (B,) int64, a number that belongs to each image; only sampling uses it.
        """
        with torch.inference_mode():
            if self._search.method == "neuraltalk2":
                return _as_neuraltalk2(self._search, self._decoder, state)
            if self._search.method == "sample":
                seeds = image_seeds if image_seeds is not None else torch.arange(len(state))
                return self._sampling(self._decoder, state, self._logits_processor, seeds.to(state.device))
            if self._static:
                return self._static(state)
            return self._beam_search(self._decoder, state, self._logits_processor)


def generate(
    search: Search,
    decoder: Decoder,
    embeddings: torch.Tensor,
    *,
    image_seeds: torch.Tensor | None = None,
    suppressed_ids: Sequence[int] = (),
    forbidden_final_ids: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Returns the candidates of each image, best first.

    Args:
        decoder: in evaluation mode.
        embeddings: (B, E) of the images.
        image_seeds, suppressed_ids, forbidden_final_ids: as for `CaptionSearch`.
    """
    with torch.inference_mode():
        state = decoder.initial_state(embeddings)
    return generate_from_state(
        search,
        decoder,
        state,
        image_seeds=image_seeds,
        suppressed_ids=suppressed_ids,
        forbidden_final_ids=forbidden_final_ids,
    )


def generate_from_state(
    search: Search,
    decoder: StepDecoder,
    state: DecoderState,
    *,
    image_seeds: torch.Tensor | None = None,
    suppressed_ids: Sequence[int] = (),
    forbidden_final_ids: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """As `generate`, with any `StepDecoder`, from its state after the images.

    Args:
        state: of B images.
    """
    prepared = CaptionSearch(
        search,
        decoder,
        state.device,
        suppressed_ids=suppressed_ids,
        forbidden_final_ids=forbidden_final_ids,
        run=None if state.device.type == "cpu" else run_directly,
    )
    return prepared(state, image_seeds)


def _as_neuraltalk2(search: Search, speaker: StepDecoder, state: DecoderState) -> list[list[Hypothesis]]:
    length = min(search.max_tokens, speaker.max_tokens or search.max_tokens)
    return [
        [Hypothesis(said.words, said.log_prob, said.ended) for said in captions[: search.num_candidates]]
        for captions in neuraltalk2_search.search(speaker, state, beams=search.beam_size, length=length)
    ]
