"""BLEU-4, ROUGE-L, METEOR, CIDEr and BERTScore of captions against references, each by the field's own package.

    for score in measure(pairs, ["BLEU-4", "CIDEr"], choose_tokenizer(), Judge()):
        score.metric, score.interval, score.missing

Every metric is a figure of sums over clips, so that its interval costs no second look at the captions. A metric whose
package or program is not here is named with what it lacks. The corpus figures equal pycocoevalcap's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from beam_pipeline import evaluate_bertscore as bertscore
from beam_pipeline import evaluate_meteor as meteor
from beam_pipeline.evaluate_bootstrap import Interval, bootstrap, mean_of
from beam_pipeline.evaluate_tokens import Tokenizer, is_installed

#: In the order of the paper's table.
METRICS = ("BLEU-4", "ROUGE-L", "METEOR", "CIDEr", "BERTScore")
#: As pycocoevalcap has them: so that nothing is divided by zero, and no match at all is nearly zero.
_SMALL, _TINY = 1e-9, 1e-15
#: Words in a row that BLEU-4 counts.
_WORDS = (1, 2, 3, 4)
_INSTALL = "pip install 'reelscribe[evaluate]'"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A clip's caption and the references to it."""

    caption: str
    references: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric of one set of captions: a share of 1 (CIDEr: from 0 to 10), or what it lacks here."""

    metric: str
    interval: Interval
    missing: str | None = None


def lacking(metric: str, judge: bertscore.Judge) -> str | None:
    """What a metric needs and is not here; None where it can be measured."""
    if metric == "METEOR":
        return meteor.missing()
    if metric == "BERTScore":
        return judge.missing()
    return None if is_installed("nltk" if metric == "BLEU-4" else "pycocoevalcap") else _INSTALL


def measure(pairs: Sequence[Pair], metrics: Sequence[str], tokenizer: Tokenizer, judge: bertscore.Judge) -> list[Score]:
    """Measure a set of captions.

    Args:
      metrics: of `METRICS`. judge: the model of BERTScore, which reads the captions as they are, not their tokens.
    """
    missing_of = {metric: lacking(metric, judge) for metric in metrics}
    captions: list[str] = []
    references: list[list[str]] = []
    if any(missing_of[metric] is None for metric in metrics if metric in _OF_TOKENS):
        captions = tokenizer([pair.caption for pair in pairs])
        flat = iter(tokenizer([text for pair in pairs for text in pair.references]))
        references = [[next(flat) for _ in pair.references] for pair in pairs]
    found = []
    for metric, missing in missing_of.items():
        if missing or not pairs:
            found.append(Score(metric, Interval(None), missing))
        elif metric == "BERTScore":
            found.append(Score(metric, mean_of(judge.f1([(pair.caption, pair.references) for pair in pairs]))))
        else:
            found.append(Score(metric, _OF_TOKENS[metric](captions, references)))
    return found


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Interval:
    """BLEU-4 of the corpus, against the reference length that is closest.

    The words are counted by NLTK: the licence of pycocoevalcap's own counting excludes commercial use.
    """
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    rows = []
    for caption, told in zip(captions, references, strict=True):
        words, others = caption.split(), [one.split() for one in told]
        matched = [modified_precision(others, words, count).numerator for count in _WORDS]
        # Of a caption with fewer words NLTK says that one match was possible.
        possible = [max(0, len(words) - count + 1) for count in _WORDS]
        rows.append([len(words), closest_ref_length(others, len(words)), *matched, *possible])
    return bootstrap(np.array(rows, dtype=float), bleu_of_sums)


def bleu_of_sums(sums: np.ndarray) -> np.ndarray:
    """BLEU-4 from (n, 10): length, reference length, matches of one to four words, and how many there might be."""
    matched, possible = sums[:, 2:6] + _TINY, sums[:, 6:10] + _SMALL
    lengths = (sums[:, 0] + _TINY) / (sums[:, 1] + _SMALL)
    brevity = np.where(lengths < 1, np.exp(1 - 1 / lengths), 1.0)
    return np.prod(matched / possible, axis=1) ** 0.25 * brevity


def rouge(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Interval:
    """ROUGE-L: the mean over clips of the F-measure with beta 1.2, the best precision and recall of any reference."""
    from pycocoevalcap.rouge.rouge import Rouge

    score = Rouge().calc_score
    return mean_of(np.array([score([one], list(told)) for one, told in zip(captions, references, strict=True)]))


def cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Interval:
    """CIDEr-D, which the field calls CIDEr: word weights from the references of these very clips."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer()
    for caption, told in zip(captions, references, strict=True):
        scorer += (caption, list(told))
    _, scores = scorer.compute_score()
    return mean_of(scores)


def meteor_1_5(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Interval:
    """METEOR 1.5 of the corpus."""
    program = meteor.running()
    return bootstrap(program.figures(zip(captions, references, strict=True)), program.scores)


_OF_TOKENS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], Interval]] = {
    "BLEU-4": bleu,
    "ROUGE-L": rouge,
    "METEOR": meteor_1_5,
    "CIDEr": cider,
}
