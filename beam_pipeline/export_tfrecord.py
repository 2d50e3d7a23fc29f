"""TFRecord files of `tf.train.Example`, written without TensorFlow.

    features = {"clip_id": tf.io.FixedLenFeature([], tf.string), "start_ms": tf.io.FixedLenFeature([], tf.int64)}
    tf.data.TFRecordDataset(files).map(lambda record: tf.io.parse_single_example(record, features))

Each column of `clips` is a feature of its name: text as bytes, whole numbers and booleans as int64, other numbers as
float32. Lists of structs become parallel lists, `captions/caption` beside `captions/teacher`. What is null has no
values (in parallel lists: an empty text, or NaN). Float32 is too coarse for times hours into a video, so every time in
seconds also stands in whole milliseconds: `start_ms` beside `start_s`. `frames` are the JPEG files of a clip's frames,
and `clip` is its own file.
"""

from __future__ import annotations

import functools
import io
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from beam_pipeline.export import ClipSample
from transforms.schemas import CLIPS

#: Of the format: what is added to a check sum, so that one of bytes that hold check sums is no weak one.
_MASK = 0xA282EAD8


class TFRecord:
    """The format. Raises a ModuleNotFoundError where the packages for check sums and messages are not installed."""

    suffix = ".tfrecord"

    def __init__(self) -> None:
        import google_crc32c

        example_class()
        self._checksum = google_crc32c.value

    def open(self, file: io.RawIOBase) -> RecordWriter:
        """Begin a file."""
        return RecordWriter(file, self._checksum)


class RecordWriter:
    """Writes one file of records."""

    def __init__(self, file: io.RawIOBase, checksum: Any):
        self._file, self._checksum = file, checksum

    def write(self, sample: ClipSample) -> None:
        """Add a clip: its length, the length's check sum, the message, the message's check sum."""
        message = encode(features_of(sample))
        length = struct.pack("<Q", len(message))
        self._file.write(length + self._masked(length) + message + self._masked(message))

    def _masked(self, content: bytes) -> bytes:
        checksum = self._checksum(content)
        return struct.pack("<I", ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF)

    def close(self) -> None:
        """Nothing follows the last record."""


def features_of(sample: ClipSample) -> dict[str, list[bytes] | list[int] | list[float]]:
    """The features of a clip by name; a list of bytes, of whole numbers or of others, empty for what is null."""
    features: dict[str, Any] = {}
    for field in CLIPS:
        if field.name in sample.row:
            features |= _features(field.name, field.type, sample.row[field.name])
    if sample.file:
        features["clip"] = [sample.file[1]]
    if sample.frames:
        features["frames"] = list(sample.frames)
    return features


def _features(name: str, kind: pa.DataType, value: Any) -> dict[str, Any]:
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        found: dict[str, Any] = {}
        for field in kind.value_type:
            column = [one[field.name] for one in value or []]
            found |= _typed(f"{name}/{field.name}", field.type, [_absent(field.type, one) for one in column])
        return found
    inner = kind.value_type if pa.types.is_list(kind) else kind
    values = value if pa.types.is_list(kind) else [value]
    return _typed(name, inner, [] if value is None else values)


def _absent(kind: pa.DataType, value: Any) -> Any:
    """A place in a list that runs beside others can't be left out."""
    if value is not None:
        return value
    return "" if pa.types.is_string(kind) else math.nan if pa.types.is_floating(kind) else 0


def _typed(name: str, kind: pa.DataType, values: Iterable[Any]) -> dict[str, Any]:
    if pa.types.is_string(kind):
        return {name: [text.encode() for text in values]}
    if pa.types.is_floating(kind):
        numbers = [float(number) for number in values]
        if not name.endswith("_s"):
            return {name: numbers}
        return {name: numbers, f"{name[:-2]}_ms": [round(number * 1000) for number in numbers]}
    return {name: [int(number) for number in values]}


def encode(features: Mapping[str, list[Any]]) -> bytes:
    """A `tf.train.Example` as bytes, the same for the same features."""
    example = example_class()()
    for name, values in features.items():
        feature = example.features.feature[name]
        if not values:
            feature.SetInParent()
        elif isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(np.asarray(values, np.float32).tolist())
    return example.SerializeToString(deterministic=True)


@functools.cache
def example_class() -> Any:
    """The message `tensorflow.Example`, from its description: that of TensorFlow comes with all of TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    of = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="reelscribe/example.proto", package="tensorflow", syntax="proto3")

    def field(
        message: Any, name: str, number: int, kind: int, label: int = of.LABEL_OPTIONAL, of_type: str = ""
    ) -> Any:
        made = message.field.add(name=name, number=number, type=kind, label=label)
        if of_type:
            made.type_name = f".tensorflow.{of_type}"
        return made

    lists = (("BytesList", of.TYPE_BYTES), ("FloatList", of.TYPE_FLOAT), ("Int64List", of.TYPE_INT64))
    for name, kind in lists:
        field(file.message_type.add(name=name), "value", 1, kind, of.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, _) in enumerate(lists, 1):
        one = field(feature, f"{name[:-4].lower()}_list", number, of.TYPE_MESSAGE, of_type=name)
        one.oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, of.TYPE_STRING)
    field(entry, "value", 2, of.TYPE_MESSAGE, of_type="Feature")
    field(features, "feature", 1, of.TYPE_MESSAGE, of.LABEL_REPEATED, "Features.FeatureEntry")
    field(file.message_type.add(name="Example"), "features", 1, of.TYPE_MESSAGE, of_type="Features")
    # A pool of our own: TensorFlow, in the same process, has the same names in the common one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
