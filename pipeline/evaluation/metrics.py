"""Scores captions against references: BLEU, METEOR, ROUGE-L, CIDEr and SPICE by pycocoevalcap.

With Java the tokens are the Penn Treebank's, and the scores comparable with papers. Without it, as in training, the
tokens are this project's own: the scores are comparable among epochs, not with papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from model.tokenizers import tokenize
from pipeline.errors import InputError
from pipeline.evaluation.java import Java, JavaError, MissingError
from pipeline.evaluation.java_metrics import Tokens, meteor, spice, tokenize_ptb

BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")
METRICS = (*BLEU, "METEOR", "ROUGE_L", "CIDEr", "SPICE")
"""Names and order of pycocoevalcap."""
JAVA_METRICS = {"METEOR": meteor, "SPICE": spice}

MetricResult = tuple[float, Sequence[float]]
"""The score of all images together, and of each image."""


@dataclass
class Scores:
    """The computed scores. CIDEr is in [0, 10], the others in [0, 1]; nan if a metric is undefined for an image."""

    tokens: Literal["PTB", "own"]
    """Tokenization of the compared captions."""
    totals: dict[str, float] = field(default_factory=dict)
    """Score by metric. BLEU and METEOR are computed over all captions together, others averaged over images."""
    per_image: dict[str, list[float]] = field(default_factory=dict)
    """Score of each image by metric, in the order of the captions."""
    missing: dict[str, str] = field(default_factory=dict)
    """The reason why a metric, or "PTB tokens", was not computed."""
    failed: bool = False
    """True if one is missing although everything that it needs is installed."""

    def add(self, metric: str, result: MetricResult) -> None:
        """Adds the result of a metric."""
        total, each = result
        self.totals[metric], self.per_image[metric] = float(total), [float(one) for one in each]

    def add_missing(self, metric: str, why: JavaError) -> None:
        """Records a metric that was not computed."""
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
        captions: caption by image. A caption without words scores 0.
        references: at least one reference caption of each of these images.
        java: runs the Penn Treebank tokenizer, METEOR and SPICE; None leaves them out.
        without_java: the reason if `java` is None.

    Raises InputError if no reference has a word.
    """
    scores, ours, theirs = _tokenized(captions, references, java, without_java)
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


def score_cider(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    java: Java | None = None,
    without_java: str = "Java was not asked for",
) -> Scores:
    """Scores one caption per image by CIDEr alone; as `score` otherwise."""
    scores, ours, theirs = _tokenized(captions, references, java, without_java)
    scores.add("CIDEr", Cider().compute_score(theirs, ours))
    return scores


def _tokenized(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], java: Java | None, without_java: str
) -> tuple[Scores, Tokens, Tokens]:
    """Tokenizes captions and references as the Penn Treebank does if Java works, else with our own tokenizer.

    Raises InputError if no reference has a word.
    """
    texts = [*captions.values(), *(text for image in captions for text in references[image])]
    try:
        if java is None:
            raise MissingError(without_java)
        scores, found = Scores("PTB"), iter(tokenize_ptb(texts, java))
    except JavaError as error:
        scores, found = Scores("own"), (" ".join(tokenize(text)) for text in texts)
        scores.add_missing("PTB tokens", error)
    ours = {image: [next(found)] for image in captions}
    theirs = {image: [next(found) for _ in references[image]] for image in captions}
    if not any(text.split() for texts in theirs.values() for text in texts):
        raise InputError(f"none of the references of {len(captions)} images has a word")
    return scores, ours, theirs
