"""How probable a speaker finds captions that are given."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.decoding.hypothesis import Hypothesis
from model.nn.decoder_state import Speaker, State
from model.vocabulary import END


def token_log_probs(
    speaker: Speaker, state: State, captions: Sequence[Sequence[Hypothesis]]
) -> list[list[list[float]]]:
    """Natural-log probabilities of each word and END of each caption of each image.

    Args:
        state: after the images, before START.
        captions: of each image; END counts only where it was said.
    """
    rows = [image for image, some in enumerate(captions) for _ in some]
    said = [caption for some in captions for caption in some]
    longest = max((caption.num_tokens for caption in said), default=0)
    padded = [[*caption.words, *[END] * (longest + 1 - len(caption.words))] for caption in said]
    device = state.device
    words = torch.tensor(padded, device=device).view(len(said), longest + 1)
    state = state.rows(torch.tensor(rows, dtype=torch.int64, device=device))
    found = torch.zeros(len(said), longest, device=device)
    for step in range(longest):
        log_probs, state = speaker.step(words[:, step - 1], state)  # the last place holds START
        found[:, step] = log_probs.gather(1, words[:, step : step + 1]).squeeze(1)
    each = iter(zip(found.tolist(), said, strict=True))
    return [[values[: caption.num_tokens] for values, caption in (next(each) for _ in some)] for some in captions]
