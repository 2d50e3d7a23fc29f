"""Subtitles inside a video file: which track to read, and the cue of each of its packets.

    cues.extend(cue_of(packet))

It looks at streams and packets that `transforms.media` opened; it opens no media itself.
"""

from __future__ import annotations

import html
import re
import struct
from collections.abc import Iterator
from typing import Any

from transforms.records import Cue

_TEXT_CODECS = ("subrip", "srt", "mov_text", "ass", "ssa", "webvtt", "text")
_TAGS = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")
_UNTIMED_S = 5.0


def text_track(container: Any) -> Any | None:
    """The text subtitle track to read: the default one, else the first."""
    tracks = [s for s in container.streams.subtitles if s.codec_context and s.codec_context.name in _TEXT_CODECS]
    return next((track for track in tracks if track.disposition & 1), tracks[0] if tracks else None)


def cue_of(packet: Any) -> Iterator[Cue]:
    """The packet's cue without its markup; nothing for an empty one, with which MP4 fills the time between cues."""
    if packet.pts is None or not packet.size:
        return
    codec = packet.stream.codec_context.name
    raw = bytes(packet)
    if codec == "mov_text":
        length = struct.unpack(">H", raw[:2])[0] if len(raw) >= 2 else 0
        raw = raw[2 : 2 + length]
    text = raw.decode("utf-8", "replace").partition("\0")[0]
    if codec in ("ass", "ssa"):
        # ReadOrder, Layer, Style, Name, MarginL, MarginR, MarginV, Effect, Text
        text = text.split(",", 8)[-1].replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    text = plain(text)
    if text:
        start_s = float(packet.pts * packet.time_base)
        duration_s = float(packet.duration * packet.time_base) if packet.duration else _UNTIMED_S
        yield Cue(start_s, start_s + duration_s, text)


def plain(text: str) -> str:
    """`text` without tags and entities, one line each, blank ones dropped."""
    lines = (" ".join(html.unescape(_TAGS.sub("", line)).split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def tagged_duration_s(stream: Any) -> float | None:
    """The DURATION that Matroska writers tag each stream with, `00:00:04.000000000`."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None
