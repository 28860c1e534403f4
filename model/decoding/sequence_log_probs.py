"""Log-probabilities that a decoder assigns to given captions (teacher forcing)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.decoding.hypothesis import Hypothesis
from model.nn.decoder_state import DecoderState, StepDecoder
from model.vocabulary import END


def token_log_probs(
    decoder: StepDecoder, state: DecoderState, captions: Sequence[Sequence[Hypothesis]]
) -> list[list[list[float]]]:
    """Returns the natural-log probability of each word and END of each caption of each image.

    Args:
        state: after the images, before START.
        captions: those of each image; END counts only where it was generated.
    """
    image_index = [image for image, candidates in enumerate(captions) for _ in candidates]
    flat = [caption for candidates in captions for caption in candidates]
    longest = max((caption.num_tokens for caption in flat), default=0)
    padded = [[*caption.words, *[END] * (longest + 1 - len(caption.words))] for caption in flat]
    device = state.device
    words = torch.tensor(padded, device=device).view(len(flat), longest + 1)
    state = state.select(torch.tensor(image_index, dtype=torch.int64, device=device))
    gathered = torch.zeros(len(flat), longest, device=device)
    for step in range(longest):
        log_probs, state = decoder.step(words[:, step - 1], state)  # at step 0, the last column holds START
        gathered[:, step] = log_probs.gather(1, words[:, step : step + 1]).squeeze(1)
    values = iter(zip(gathered.tolist(), flat, strict=True))
    return [
        [row[: caption.num_tokens] for row, caption in (next(values) for _ in candidates)] for candidates in captions
    ]
