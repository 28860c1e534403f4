"""How good captions are against people's: BLEU, METEOR, ROUGE-L, CIDEr and SPICE by pycocoevalcap.

With Java the tokens are the Penn Treebank's and the numbers those that papers report. Without it, as while training,
they are of this project's own tokens: good to compare epochs, not to compare with papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from model.vocabulary import tokenize
from pipeline.errors import InputError
from pipeline.evaluation.java import Java, JavaError, MissingError
from pipeline.evaluation.java_metrics import Tokens, meteor, spice, tokenize_ptb

BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")
METRICS = (*BLEU, "METEOR", "ROUGE_L", "CIDEr", "SPICE")
"""As pycocoevalcap names them, in its order."""
JAVA_METRICS = {"METEOR": meteor, "SPICE": spice}

MetricResult = tuple[float, Sequence[float]]
"""Of all images together, and of each."""


@dataclass
class Scores:
    """What was computed. CIDEr is in [0, 10], the others in [0, 1]; nan where a metric has none for an image."""

    tokens: Literal["PTB", "own"]
    """Whose tokens were compared."""
    totals: dict[str, float] = field(default_factory=dict)
    """By metric. BLEU's and METEOR's are of all captions pooled, the others' the mean of the images'."""
    per_image: dict[str, list[float]] = field(default_factory=dict)
    """By metric, in the order of the captions."""
    missing: dict[str, str] = field(default_factory=dict)
    """Metric, or "PTB tokens" → why it was not computed."""
    failed: bool = False
    """One is missing although all that it needs is there."""

    def add(self, metric: str, result: MetricResult) -> None:
        """Notes a metric's result."""
        total, each = result
        self.totals[metric], self.per_image[metric] = float(total), [float(one) for one in each]

    def add_missing(self, metric: str, why: JavaError) -> None:
        """Notes a metric that was not computed."""
        self.missing[metric] = str(why)
        self.failed |= not isinstance(why, MissingError)


def score(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    java: Java | None = None,
    without_java: str = "Java was not asked for",
) -> Scores:
    """Scores one caption per image.

    Args:
        captions: by image. One without words is worth nothing.
        references: people's, of each of these images; one at least.
        java: runs the tokenizer of the Penn Treebank, METEOR and SPICE.
        without_java: why there is none.

    Raises InputError if no reference has a word.
    """
    scores, ours, theirs = _tokenized(captions, references, java, without_java)
    if not any(text.split() for texts in theirs.values() for text in texts):
        raise InputError(f"none of the references of {len(captions)} images has a word")
    for metric, result in zip(BLEU, zip(*Bleu(4).compute_score(theirs, ours, verbose=0), strict=True), strict=True):
        scores.add(metric, result)
    scores.add("ROUGE_L", Rouge().compute_score(theirs, ours))
    scores.add("CIDEr", Cider().compute_score(theirs, ours))
    for metric, compute in JAVA_METRICS.items():
        try:
            if java is None:
                raise MissingError(f"it needs Java: {without_java}")
            if scores.tokens != "PTB":
                raise JavaError(f"it needs PTB tokens: {scores.missing['PTB tokens']}")
            scores.add(metric, compute(theirs, ours, java))
        except JavaError as error:
            scores.add_missing(metric, error)
    scores.totals = {metric: scores.totals[metric] for metric in METRICS if metric in scores.totals}
    return scores


def _tokenized(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], java: Java | None, without_java: str
) -> tuple[Scores, Tokens, Tokens]:
    """Tokens of the captions and of the references: the Penn Treebank's where that works, else our own."""
    texts = [*captions.values(), *(text for image in captions for text in references[image])]
    try:
        if java is None:
            raise MissingError(without_java)
        scores, found = Scores("PTB"), iter(tokenize_ptb(texts, java))
    except JavaError as error:
        scores, found = Scores("own"), (" ".join(tokenize(text)) for text in texts)
        scores.add_missing("PTB tokens", error)
    ours = {image: [next(found)] for image in captions}
    return scores, ours, {image: [next(found) for _ in references[image]] for image in captions}
