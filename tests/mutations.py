"""Spoilt videos, the same at every run, and what may be said about them.

    raw, how = mutate(path.read_bytes(), random.Random("7/1234"))     # how: "cut off at 51200, 3 bits flipped ..."
    assert faults_of_sentence(str(error), str(path)) == []

A mutation knows just enough of containers to hurt: where the lengths of boxes, clusters, chunks and tags stand.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from random import Random

from synthetic import make_video

Mutation = Callable[[bytearray, Random], str]

#: What stands before or behind a length field, by container: (pattern, where the field begins, how wide it is).
_LENGTHS = (
    (re.compile(rb"ftyp|moov|trak|mdia|minf|stbl|stsd|stts|ctts|stsc|stsz|stco|elst|mdat|moof|traf|trun|avc1"), -4, 4),
    (re.compile(rb"RIFF|LIST|avih|strh|strf|idx1|00dc|01wb"), 4, 4),
    (re.compile(rb"\x1a\x45\xdf\xa3|\x18\x53\x80\x67|\x11\x4d\x9b\x74|\x16\x54\xae\x6b|\x1f\x43\xb6\x75"), 4, 4),
    (re.compile(rb"\x00\x00\x00\x00[\x08\x09\x12]"), 5, 3),  # a tag of FLV, behind its empty predecessor's length
    (re.compile(rb"\x47[\x00-\x1f\x40-\x5f].[\x20-\x3f]", re.DOTALL), 4, 1),  # the adaptation field of a TS packet
)
#: Counts and sizes in tables of MP4, in the strh of AVI and in Matroska's track: where a number becomes an allocation.
_NUMBERS = re.compile(
    rb"stts|stsz|stsc|stco|ctts|elst|mvhd|mdhd|tkhd|avc1|esds|trun|tfhd|strh|strf|avih|\xb0\x82|\xba\x82"
)
_EXTREMES = (0, 1, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER_BYTES = 2048


def mutate(raw: bytes, dice: Random) -> tuple[bytes, str]:
    """Spoil a file in one to three ways; return it and what was done to it."""
    spoilt, told = bytearray(raw), []
    for mutation in dice.choices(MUTATIONS, k=dice.choice((1, 1, 2, 3))):
        if len(spoilt) > 16:
            told.append(mutation(spoilt, dice))
    return bytes(spoilt), ", ".join(told)


def flip_header_bits(raw: bytearray, dice: Random) -> str:
    # An index stands at the front or at the back, by the container and its muxer.
    size = min(_HEADER_BYTES, len(raw))
    offset = dice.choice((0, len(raw) - size))
    return _flip(raw, dice, offset, offset + size, dice.randint(1, 16)) + " of the header or the index"


def flip_content_bits(raw: bytearray, dice: Random) -> str:
    begin = min(_HEADER_BYTES, len(raw) // 4)
    return _flip(raw, dice, begin, len(raw), dice.randint(1, 200)) + " of the content"


def cut_off(raw: bytearray, dice: Random) -> str:
    at = dice.randrange(1, len(raw))
    del raw[at:]
    return f"cut off at {at}"


def delete_block(raw: bytearray, dice: Random) -> str:
    begin, end = _block(raw, dice)
    del raw[begin:end]
    return f"{begin}:{end} deleted"


def duplicate_block(raw: bytearray, dice: Random) -> str:
    begin, end = _block(raw, dice)
    raw[end:end] = raw[begin:end]
    return f"{begin}:{end} doubled"


def zero_range(raw: bytearray, dice: Random) -> str:
    begin, end = _block(raw, dice)
    raw[begin:end] = bytes(end - begin)
    return f"{begin}:{end} zeroed"


def scramble_range(raw: bytearray, dice: Random) -> str:
    begin, end = _block(raw, dice)
    raw[begin:end] = dice.randbytes(end - begin)
    return f"{begin}:{end} scrambled"


def swap_blocks(raw: bytearray, dice: Random) -> str:
    begin, end = _block(raw, dice)
    size = end - begin
    other = dice.randrange(0, len(raw) - size + 1)
    one, two = bytes(raw[begin:end]), bytes(raw[other : other + size])
    raw[other : other + size] = one
    raw[begin:end] = two
    return f"{begin}:{end} swapped with {other}"


def overwrite_length(raw: bytearray, dice: Random) -> str:
    """Say that a box, chunk, cluster, tag or packet is longer or shorter than it is."""
    fields = [
        (match.start() + where, width)
        for pattern, where, width in _LENGTHS
        for match in pattern.finditer(raw)
        if 0 <= match.start() + where <= len(raw) - width
    ]
    return _overwrite(raw, dice, fields, "length")


def overwrite_number(raw: bytearray, dice: Random) -> str:
    """Put an extreme number into a table or a track's header: counts, sizes, rates, times."""
    fields = [(match.end() + 2 * dice.randrange(20), dice.choice((1, 2, 4))) for match in _NUMBERS.finditer(raw)]
    return _overwrite(raw, dice, [field for field in fields if sum(field) <= len(raw)], "number")


def prepend_garbage(raw: bytearray, dice: Random) -> str:
    size = dice.choice((1, 3, 188, 4096))
    raw[:0] = dice.choice((bytes(size), dice.randbytes(size), b"<html>" * (size // 6 + 1)))
    return f"{size} bytes put before it"


MUTATIONS: tuple[Mutation, ...] = (
    flip_header_bits, flip_content_bits, cut_off, delete_block, duplicate_block, zero_range, scramble_range,
    swap_blocks, overwrite_length, overwrite_number, prepend_garbage,
)  # fmt: skip


def _flip(raw: bytearray, dice: Random, begin: int, end: int, count: int) -> str:
    for _ in range(count):
        raw[dice.randrange(begin, end)] ^= 1 << dice.randrange(8)
    return f"{count} bits flipped"


def _block(raw: bytearray, dice: Random) -> tuple[int, int]:
    size = min(dice.choice((1, 4, 16, 188, 1024, 16_384)), len(raw) // 2)
    begin = dice.randrange(0, len(raw) - size + 1)
    return begin, begin + size


def _overwrite(raw: bytearray, dice: Random, fields: list[tuple[int, int]], what: str) -> str:
    offset, width = dice.choice(fields or [(0, 4)])
    was = int.from_bytes(raw[offset : offset + width], "big")
    value = dice.choice((*_EXTREMES, was + 1, was - 1, 2 * was, dice.getrandbits(32))) % (1 << 8 * width)
    raw[offset : offset + width] = value.to_bytes(width, dice.choice(("big", "big", "little")))
    return f"{what} at {offset} set to {value}"


def small_videos(folder: pathlib.Path) -> list[pathlib.Path]:
    """Write a video of 1.6 s with one cut in each kind of container, some with sound and subtitles."""
    kinds = {
        "plain.mp4": {},
        "full.mp4": {"audio_s": 1.6, "subtitles": [(0.1, 0.9, "Hello")]},
        "hevc.mp4": {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none"}},
        "jpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
        "full.mkv": {"audio_s": 1.6, "subtitles": [(0.1, 0.9, "Hello")]},
        "vp8.webm": {"codec": "libvpx"},
        "vp9.webm": {"codec": "libvpx-vp9"},
        "mpeg4.avi": {"codec": "mpeg4", "audio_s": 1.6},
        "mpeg2.ts": {"codec": "mpeg2video"},
        "h264.ts": {"audio_s": 1.6},
        "sorenson.flv": {"codec": "flv"},
        "h264.flv": {"audio_s": 1.6},
    }
    shots = [(0.8, "red"), (0.8, "blue")]
    return [make_video(folder / name, shots, size=(160, 90), drift_px=3, **kind) for name, kind in kinds.items()]


#: What only those understand who wrote the program.
_JARGON = re.compile(
    r"Traceback|[Ee]rrno|0x[0-9a-f]{3}|\b[A-Z]\w*(Error|Exception)\b|<\w+[ .]\w|\bobject at\b|\bself\b|\bNone\b|\bnan\b"
)


def faults_of_sentence(message: str, path: str) -> list[str]:
    """What keeps a message from being one plain sentence, apart from the file's own name."""
    said = message.replace(path, "FILE")
    faults = []
    if len(said) > 300:
        faults.append(f"{len(said)} characters")
    if not re.fullmatch(r"\S[^\r\n\t]*[A-Za-z)']", said) or len(re.findall(r"[A-Za-z]{2,}", said)) < 4:
        faults.append("no sentence of one line that ends in a word")
    faults += [f"says {found.group()!r}" for found in _JARGON.finditer(said)]
    return [f"{fault}: {said!r}" for fault in faults]
