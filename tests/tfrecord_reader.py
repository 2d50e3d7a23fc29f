"""TFRecord files read by the format's description alone: no TensorFlow, no protobuf, no package for check sums."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator

Features = dict[str, list]


def read_records(path: pathlib.Path) -> Iterator[Features]:
    """The features of each `tf.train.Example`; a wrong check sum is an error."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        length, length_sum = struct.unpack_from("<QI", content, at)
        assert masked(content[at : at + 8]) == length_sum
        message = content[at + 12 : at + 12 + length]
        (message_sum,) = struct.unpack_from("<I", content, at + 12 + length)
        assert masked(message) == message_sum
        yield _example(message)
        at += 16 + length


def masked(content: bytes) -> int:
    checksum = crc32c(content)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """Castagnoli's check sum, bit by bit through a table of the 256 bytes."""
    checksum = 0xFFFFFFFF
    for byte in content:
        checksum = _TABLE[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    return checksum ^ 0xFFFFFFFF


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = [_entry(byte) for byte in range(256)]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers and contents; every field that is used here has a length."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        assert key & 7 == 2
        length, at = _varint(content, at)
        yield key >> 3, content[at : at + length]
        at += length


def _example(message: bytes) -> Features:
    features: Features = {}
    for number, one in _fields(message):
        assert number == 1
        for entry_number, entry in _fields(one):
            assert entry_number == 1
            parts = dict(_fields(entry))
            features[parts[1].decode()] = _values(parts.get(2, b""))
    return features


def _values(feature: bytes) -> list:
    for kind, values in _fields(feature):
        contents = [content for number, content in _fields(values) if number == 1]
        if kind == 1:
            return contents
        packed = b"".join(contents)
        if kind == 2:
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
        found, at = [], 0
        while at < len(packed):
            value, at = _varint(packed, at)
            found.append(value - (1 << 64) if value >> 63 else value)
        return found
    return []
