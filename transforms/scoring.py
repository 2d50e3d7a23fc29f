"""Score every caption against its clip and choose the best: the retrieval model of Panda-70M, section 3.3.

captioned | JudgeCaptions(selector, abstain_below=0.1)     # -> JudgedClip
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from transforms.counting import count
from transforms.inference import infer
from transforms.records import CaptionedClip, Failure, JudgedClip, Outcome

_SETTLED = "settled"

#: What the selector is called among what a clip was made with.
SELECTOR = "select"

NO_CAPTION = Failure("NoCaption", "no teacher could caption this clip", "")


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Which candidate won, by how much, and whether the selector finds it any good."""

    chosen: int
    margin: float | None
    abstained: bool


def choose(scores: Sequence[float], abstain_below: float | None = None) -> Choice:
    """Choose the highest score; of equal ones the first, so that the choice is stable.

    Args:
      scores: one a candidate, at least one, higher is better.
      abstain_below: the selector abstains when even the best is under this; the best stands all the same.
    """
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    best = order[0]
    margin = scores[best] - scores[order[1]] if len(order) > 1 else None
    return Choice(best, margin, abstain_below is not None and scores[best] < abstain_below)


def judge(
    outcome: Outcome[CaptionedClip, Sequence[float]], abstain_below: float | None = None, made_with: str = ""
) -> JudgedClip:
    """What the selector, of this fingerprint, made of one clip; its failure is the clip's failure."""
    captioned = outcome.request
    if outcome.failure is not None:
        return _failed(captioned, "score", outcome.failure)
    scores = tuple(float(score) for score in outcome.answer or ())
    if len(scores) != len(captioned.candidates) or any(score != score for score in scores):
        wrong = Failure("BadScores", f"the selector gave {scores} for {len(captioned.candidates)} captions", "")
        return _failed(captioned, "score", wrong)
    # The same words fit equally well; their scores differ in the last places with their place in a batch.
    first: dict[str, float] = {}
    scores = tuple(first.setdefault(seen.text, score) for seen, score in zip(captioned.candidates, scores, strict=True))
    choice = choose(scores, abstain_below)
    return JudgedClip(
        captioned, scores, choice.chosen, choice.margin, choice.abstained, captioned.dead_letters, made_with
    )


def settled(captioned: CaptionedClip, abstain_below: float | None = None, made_with: str = "") -> JudgedClip | None:
    """The judgement that needs no selector: no caption to judge, or an earlier run judged the very same ones."""
    if not captioned.candidates:
        return _failed(captioned, "caption", NO_CAPTION)
    earlier = captioned.clip.earlier
    if earlier is None or earlier.candidates != captioned.candidates:
        return None
    if letter := earlier.failure("score"):
        return JudgedClip(captioned, (), None, None, False, (*captioned.dead_letters, letter))
    # Of before there was such a note, scores are here only if nothing changed.
    if not earlier.scores or earlier.made_with.get(SELECTOR, made_with) != made_with:
        return None
    return judge(Outcome(captioned, earlier.scores), abstain_below, made_with)


def _failed(captioned: CaptionedClip, stage: str, failure: Failure) -> JudgedClip:
    clip = captioned.clip
    letter = failure.letter(stage, clip.video_id, clip.uri, clip_id=clip.clip_id, span=clip.span)
    return JudgedClip(captioned, (), None, None, False, (*captioned.dead_letters, letter))


@dataclasses.dataclass
class JudgeCaptions(beam.PTransform):
    """Score each clip's candidates and choose the best.

    CaptionedClip in, one JudgedClip out for each; bounded or unbounded. A clip without captions, or one that the
    selector cannot score, comes out failed, with a dead letter that carries its span. Captions that an earlier run
    scored, all of them and no others, are not scored again.

    Args:
      selector: answers a `CaptionedClip` with one score a candidate.
      hints: resource hints, as Beam has them.
      abstain_below: see `choose`.
      made_with: the selector's fingerprint; what an earlier run scored with another is scored anew.
    """

    selector: ModelHandler
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    abstain_below: float | None = None
    made_with: str = ""

    def expand(self, captioned: beam.PCollection[CaptionedClip]) -> beam.PCollection[JudgedClip]:
        sorted_clips = captioned | "Settle" >> beam.FlatMap(_settle, self.abstain_below, self.made_with).with_outputs(
            _SETTLED, main="open"
        )
        judged = (
            sorted_clips["open"]
            | "Spread" >> beam.Reshuffle()
            | "Score" >> infer(self.selector, self.hints)
            | "Choose" >> beam.Map(_judged, self.abstain_below, self.made_with)
        )
        return (judged, sorted_clips[_SETTLED]) | beam.Flatten()


def _settle(captioned: CaptionedClip, abstain_below: float | None, made_with: str) -> Iterator[Any]:
    """Pass a clip on to the selector, unless it is settled without."""
    if captioned.candidates:
        count("score", in_=1)
    found = settled(captioned, abstain_below, made_with)
    if found is None:
        yield captioned
        return
    if found.chosen is not None:
        Metrics.counter("reelscribe/score", "reused").inc()
    if captioned.candidates:
        count("score", reused=1, **_became(found))
    yield beam.pvalue.TaggedOutput(_SETTLED, found)


def _judged(
    outcome: Outcome[CaptionedClip, Sequence[float]], abstain_below: float | None, made_with: str
) -> JudgedClip:
    judged = judge(outcome, abstain_below, made_with)
    if judged.chosen is not None:
        Metrics.counter("reelscribe/score", "clips").inc()
    count("score", **_became(judged))
    return judged


def _became(judged: JudgedClip) -> dict[str, int]:
    return {"failed" if judged.chosen is None else "out": 1}
