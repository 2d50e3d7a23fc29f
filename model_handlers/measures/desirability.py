"""Desirability: Panda-70M's six labels of how well a clip suits the training of a video generator, out of its measures.

    desirable_filtering({"motion": 0.2, "camera_motion": 0.1, "subject_motion": 0.1, "screen_in_screen": 0.0,
                         "screen_recording": 0.0})         # "desirable"

Panda-70M published the labels (October 2024) without the classifier that gave them. Names and meaning are theirs, the
rules and limits are ours: a clip has the first label of `LABELS` that holds of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from model_handlers.measures.view import Derived

DESIRABLE = "desirable"
LOW_SCORE = "0_low_desirable_score"
STILL_FOREGROUND = "1_still_foreground_image"
TINY_CAMERA = "2_tiny_camera_movement"
SCREEN_IN_SCREEN = "3_screen_in_screen"
SCREEN_RECORDING = "4_computer_screen_recording"
#: In the order in which they are asked for: what the picture is made of comes before how it moves, and before how good
#: it looks, as a still slide inside a screen recording is a screen recording.
LABELS = (SCREEN_RECORDING, SCREEN_IN_SCREEN, STILL_FOREGROUND, TINY_CAMERA, LOW_SCORE, DESIRABLE)

#: The columns without which no label can be given, and the measures that fill them.
NEEDED = ("motion", "camera_motion", "subject_motion", "screen_in_screen", "screen_recording")
MEASURES = ("motion", "screens")


@dataclasses.dataclass(frozen=True)
class Limits:
    """From where a measure makes a clip undesirable.

    Attributes:
      screen_recording, screen_in_screen: scores of 0..1, from which a clip is one.
      still: short sides a second; a clip whose `motion` is not above it shows a still picture.
      still_subject: likewise of `subject_motion`: nothing in the picture moves by itself.
      tiny_camera: likewise of `camera_motion`: the camera drifts or shakes and does no more. These three were chosen
        on 64 clips of Panda-70M that were looked at; nothing tells how near they are to Panda-70M's own.
      technical_quality, aesthetic: below which a clip scores low; each counts only where it was measured (CLIP-IQA's
        0..1, and the LAION predictor's 1..10, of which LAION-Aesthetics kept 4.5, 5 and more).

    Raises:
      ValueError: a limit is negative, or a score's limit above 1.
    """

    screen_recording: float = 0.5
    screen_in_screen: float = 0.5
    still: float = 0.0005
    still_subject: float = 0.0015
    tiny_camera: float = 0.02
    technical_quality: float = 0.3
    aesthetic: float = 4.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            highest = 1.0 if field.name in ("screen_recording", "screen_in_screen", "technical_quality") else 10.0
            if not 0 <= value <= highest:
                raise ValueError(f"{field.name} must be between 0 and {highest:g}, not {value}")


def desirable_filtering(values: Mapping[str, Any], limits: Limits | None = None) -> str | None:
    """The label of a clip of which these columns were measured.

    Args:
      values: by column: those of `NEEDED`, and `technical_quality` and `aesthetic` where there are any.

    Returns:
      One of `LABELS`; None where one of `NEEDED` is missing or None. Without a column of quality no clip scores low.
    """
    limits = limits or Limits()
    if any(values.get(name) is None for name in NEEDED):
        return None
    scores = [(values.get(name), getattr(limits, name)) for name in ("technical_quality", "aesthetic")]
    subject_rests = values["subject_motion"] <= limits.still_subject
    camera_rests = values["camera_motion"] <= limits.tiny_camera
    holds = {
        SCREEN_RECORDING: values["screen_recording"] >= limits.screen_recording,
        SCREEN_IN_SCREEN: values["screen_in_screen"] >= limits.screen_in_screen,
        # A photograph is shown or panned: all that moves is the picture as a whole.
        STILL_FOREGROUND: values["motion"] <= limits.still or (subject_rests and not camera_rests),
        TINY_CAMERA: subject_rests and camera_rests,
        LOW_SCORE: any(value is not None and value < limit for value, limit in scores),
        DESIRABLE: True,
    }
    return next(label for label in LABELS if holds[label])


MEASURE = Derived(
    name="desirability",
    column="desirable_filtering",
    summary="Panda-70M's label of a clip: desirable, or why not; out of its motion and whether it shows a screen",
    needs=MEASURES,
    make=desirable_filtering,
    labels=LABELS,
)
