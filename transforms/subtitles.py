"""Read subtitles, and find the words that belong to a clip.

    align(parse_subtitles(pathlib.Path("talk.vtt"), ".vtt"), clip.span)        # -> "what is said in the clip", or None

The files are strangers' uploads: any encoding, markup of any kind, the rolling captions of automatic transcripts. What
pysubs2 parses has been stripped of markup and bounded before, since some of its patterns take quadratic time.
"""

from __future__ import annotations

import html
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from transforms.records import Cue, Span

#: A day of speech is about 1 MB; what is larger is something else.
MAX_BYTES = 16 * 2**20

#: Nobody reads that much at once: such a file is broken or hostile, and would fill every prompt and row.
MAX_CUE_CHARACTERS = 10_000

#: Cues nearer than this follow each other without a pause, as the steps of rolling captions do.
TOUCHING_S = 0.1

SUFFIXES = (".vtt", ".srt")

# Neither pattern can cross another opening bracket, so that a million of these cost linear time.
_TAG = re.compile(r"</?[A-Za-z0-9][^<>]*>")
_OVERRIDE = re.compile(r"\{\\[^{}]*\}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


class SubtitleError(ValueError):
    """Subtitles that can't be read; the message is a plain sentence."""


def parse_subtitles(source: pathlib.Path | bytes | str, suffix: str) -> tuple[Cue, ...]:
    """Read WebVTT or SubRip.

    Args:
      source: a file, its bytes, or its text; a string without a line break is a file's path.
      suffix: ".vtt" or ".srt". A wrong one is forgiven where the text itself says what it is.

    Returns:
      The cues by start time, as plain text on one line each, rolling captions collapsed. A file without any text gives
      none.

    Raises:
      SubtitleError: not subtitles, unreadable, or too large.
    """
    if suffix.lower() not in SUFFIXES:
        raise SubtitleError(f"subtitles end in {' or '.join(SUFFIXES)}, not in {suffix!r}")
    text = source if isinstance(source, str) and "\n" in source else _decode(_read(source))
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    if not text.strip():
        return ()
    webvtt = text.lstrip().startswith("WEBVTT")
    tidy = _tidy_webvtt(text) if webvtt else _tidy_subrip(text)
    shown = sorted(_timed_lines(tidy, "vtt" if webvtt else "srt"), key=lambda cue: cue[:2])
    if not shown and ("-->" in text or not webvtt):
        raise SubtitleError("no line of text with a start and a later end was found: this is not WebVTT or SubRip")
    return tuple(collapse_rolling(shown))


def align(cues: Iterable[Cue], span: Span) -> str | None:
    """Join the text of the cues that belong to `span`, whole cues only; None when there is none.

    A cue belongs to the span when at least half of the cue lies inside, or when it fills at least half of the span: a
    sentence cut by the clip's edge goes to the clip that has most of it. A text that follows itself stands once.
    """
    texts = [cue.text for cue in cues if _belongs(cue, span)]
    return " ".join(text for text, _ in itertools.groupby(texts)) or None


def plain_text(markup: str) -> str:
    """Strip tags, override codes, entities and control characters; collapse white space."""
    bare = html.unescape(_OVERRIDE.sub("", _TAG.sub("", markup)))
    return " ".join(_CONTROL.sub("", bare.replace("\\N", " ").replace("\\n", " ").replace("\\h", " ")).split())


def collapse_rolling(shown: Sequence[tuple[float, float, tuple[str, ...]]]) -> Iterator[Cue]:
    """Collapse rolling captions: (start_s, end_s, lines) by start time -> cues in which each line is said once.

    Automatic transcripts show every line twice: as it is spoken, and above the next while that is spoken. Lines that
    open a cue and closed the one before, without a pause between, are dropped; so are mere repetitions, whose time the
    earlier cue takes over; a line that grows word by word becomes one cue.
    """
    last: Cue | None = None
    before: tuple[str, ...] = ()
    for start_s, end_s, lines in shown:
        touches = last is not None and start_s - last.end_s <= TOUCHING_S
        fresh = lines[_shared(before, lines) :] if touches else lines
        text = " ".join(fresh)
        if last is not None and touches and not fresh:
            last = Cue(last.start_s, max(last.end_s, end_s), last.text)
        elif last is not None and touches and len(lines) == 1 and text.startswith(last.text + " "):
            last = Cue(last.start_s, max(last.end_s, end_s), text)
        else:
            if last is not None:
                yield last
            last = Cue(start_s, end_s, text)
        before = lines
    if last is not None:
        yield last


def _shared(before: tuple[str, ...], lines: tuple[str, ...]) -> int:
    longest = min(len(before), len(lines), 4)
    return next((n for n in range(longest, 0, -1) if before[-n:] == lines[:n]), 0)


def _belongs(cue: Cue, span: Span) -> bool:
    inside_s = min(cue.end_s, span.end_s) - max(cue.start_s, span.start_s)
    return inside_s > 0 and 2 * inside_s >= min(cue.end_s - cue.start_s, span.duration_s)


def _read(source: pathlib.Path | bytes | str) -> bytes:
    if isinstance(source, bytes):
        raw = source
    else:
        try:
            with open(source, "rb") as opened:
                raw = opened.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise SubtitleError(f"can't read the subtitles: {error}") from error
    if len(raw) > MAX_BYTES:
        raise SubtitleError(f"larger than {MAX_BYTES // 2**20} MB: not subtitles")
    return raw


def _decode(raw: bytes) -> str:
    """UTF-8, UTF-16 with or without its mark, else Windows' Latin-1, which many old .srt files are in."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in raw[:4096]:
        # Text in a Latin alphabet has its NULs at every second byte.
        encodings = ["utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise SubtitleError("neither UTF-8, UTF-16 nor Latin-1 text: not subtitles")


def _tidy_webvtt(text: str) -> str:
    """Leave timing lines and payload only: pysubs2 takes notes, styles and named cues for words of the cue before.

    A block ends at an empty line. One that holds a space does not end it: automatic transcripts are full of these.
    """
    kept: list[str] = []
    for blank, block in itertools.groupby(text.split("\n"), key=lambda line: line == ""):
        lines = [] if blank else list(block)
        timing = next((n for n, line in enumerate(lines[:2]) if "-->" in line), None)
        if timing is not None:
            kept += ["", "0", lines[timing], *map(_bare, lines[timing + 1 :])]
    return "\n".join([*kept, "", "0", ""])


def _tidy_subrip(text: str) -> str:
    """Strip markup line by line; the final number keeps pysubs2 from taking a last line of digits for one."""
    lines = (line.rstrip() if "-->" in line else _bare(line) for line in text.split("\n"))
    # Runs of blank lines become one: pysubs2 looks through each from each of its lines.
    kept = (line for line, same in itertools.groupby(lines) for _ in (same if line else (line,)))
    return "\n".join([*kept, "", "0", ""])


def _bare(line: str) -> str:
    """A line without markup, its odd brackets as entities, so that no pattern of pysubs2 sets to work on them."""
    bare = _OVERRIDE.sub("", _TAG.sub("", line)).strip()
    return bare.replace("<", "&lt;").replace("{", "&#123;").replace("\\", "&#92;").replace("-->", "--&gt;")


def _timed_lines(text: str, form: str) -> Iterator[tuple[float, float, tuple[str, ...]]]:
    import pysubs2

    try:
        parsed = pysubs2.SSAFile.from_string(text, format_=form)
    except (pysubs2.Pysubs2Error, ValueError, OverflowError) as error:
        raise SubtitleError(f"can't read the subtitles: {error}") from error
    for event in parsed:
        lines = tuple(line for line in map(plain_text, event.text.split("\\N")) if line)
        if sum(map(len, lines)) > MAX_CUE_CHARACTERS:
            raise SubtitleError(f"a cue at {event.start / 1000:.3f} s is over {MAX_CUE_CHARACTERS} characters long")
        if lines and event.end > event.start:
            yield event.start / 1000, event.end / 1000, lines
