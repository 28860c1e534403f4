"""How good captions are, against people's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pycocoevalcap.cider.cider import Cider

from model.vocabulary import tokenize


def cider(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> float:
    """CIDEr-D of one caption per image, on this project's own tokens.

    The published figure tokenises with the Penn Treebank's tool, which needs Java and gives slightly other numbers;
    this one serves to compare epochs.
    """
    ours = {image: [" ".join(tokenize(caption))] for image, caption in captions.items()}
    theirs = {image: [" ".join(tokenize(text)) for text in references[image]] for image in captions}
    score, _ = Cider().compute_score(theirs, ours)
    return float(score)
