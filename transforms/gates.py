"""Gates for sources: which videos are worth splitting, by what their files say of themselves.

    dropped(video, media, (Rule("height", low=480),))     # -> a RejectedSpan of the whole video, or None

A video that a gate drops is a rejected span of stage `source` from its beginning to its end, with the value and the
threshold; what its header says is asked first, so that nobody decodes hours of what nobody wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transforms.filtering import Rule, first_broken
from transforms.records import MediaFacts, RejectedSpan, Span, Video
from transforms.schemas import SOURCE_STAGE

#: What a rule can be about, and what each is.
GATES: Mapping[str, str] = {
    "width": "pixels as shown",
    "height": "pixels as shown",
    "short_side": "pixels as shown, of width and height the smaller one",
    "fps": "frames a second, on average",
    "aspect": "width by height as shown",
    "duration_s": "seconds",
    "bits_per_pixel": "size of the file in bits, sound included, by the pixels of all its frames",
    "codec": "of the video stream, as FFmpeg calls it",
}


def facts_of(video: Video, media: MediaFacts) -> dict[str, Any]:
    """What rules look at; None where it can't be said."""
    pixels = media.width * media.height * media.fps * media.duration_s
    return {
        "width": media.width,
        "height": media.height,
        "short_side": min(media.width, media.height),
        "fps": media.fps or None,
        "aspect": media.width / media.height if media.height else None,
        "duration_s": media.duration_s,
        "bits_per_pixel": 8 * video.size_bytes / pixels if pixels and video.size_bytes else None,
        "codec": media.codec,
    }


def dropped(video: Video, media: MediaFacts, rules: Sequence[Rule]) -> RejectedSpan | None:
    """The whole video as a rejected span, by the first rule that it breaks; None if it breaks none."""
    broken = first_broken(rules, facts_of(video, media)) if media.duration_s > 0 else None
    if broken is None:
        return None
    whole = Span(0.0, media.duration_s)
    return RejectedSpan(video.video_id, whole, SOURCE_STAGE, broken.reason, broken.value, broken.threshold)
