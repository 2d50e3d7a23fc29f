"""What a bucket tells through Pub/Sub: an object came, changed or went.

    notification = parse_notification(message.attributes)     # Notification("finalize", "gs://uploads/a.mp4", ...)
    sources = sources_of(notification)                        # the object as it is now: duplicates all lead there

Notifications come at least once, in any order, and late: none of them says what the bucket holds now. So they only
name what is to be looked at. Source: cloud.google.com/storage/docs/pubsub-notifications.
"""

from __future__ import annotations

import dataclasses
import datetime
import posixpath
import re
from collections.abc import Collection, Mapping

from transforms.allowed import ANY, why_not
from transforms.finding import beside
from transforms.objects import parts_of
from transforms.sources import SIDE_CAR_SUFFIXES, Source, is_media, object_source, stem_of

#: Their names by the value of the attribute `eventType`.
KINDS = {
    "OBJECT_FINALIZE": "finalize",
    "OBJECT_DELETE": "delete",
    "OBJECT_ARCHIVE": "archive",
    "OBJECT_METADATA_UPDATE": "metadata_update",
}
_PAYLOADS = ("JSON_API_V1", "NONE")
_SHOWN = 80


@dataclasses.dataclass(frozen=True, slots=True)
class Notification:
    """That something happened to one version of an object.

    Attributes:
      kind: finalize (a version came), delete, archive (it became noncurrent), metadata_update.
      overwritten_by: the generation that took the place of the one that went; None where nothing did.
      overwrote: the generation whose place the one that came took; None where there was none.
    """

    kind: str
    uri: str
    generation: str
    event_time: datetime.datetime
    overwritten_by: str | None = None
    overwrote: str | None = None

    @property
    def removed(self) -> bool:
        """Whether the object has gone and no other version took its place."""
        return self.kind in ("delete", "archive") and self.overwritten_by is None


def parse_notification(attributes: Mapping[str, str], buckets: Collection[str] = (ANY,)) -> Notification:
    """Read the attributes of a Pub/Sub message; its payload repeats them, and may be absent.

    Args:
      buckets: those that may be told of (see `transforms.allowed.told_by`).

    Raises:
      ValueError: it is no notification of a bucket, or of one that may not be read; the message says why, in one line.
    """
    try:
        parsed = _parsed(attributes)
    except ValueError as error:
        raise ValueError(f"not a notification of a bucket: {error}") from error
    if refusal := why_not(parsed.uri, buckets):
        raise ValueError(refusal)
    return parsed


def _parsed(attributes: Mapping[str, str]) -> Notification:
    event = _required(attributes, "eventType")
    if event not in KINDS:
        raise ValueError(f"eventType is {_shown(event)}")
    payload = attributes.get("payloadFormat", "NONE")
    if payload not in _PAYLOADS:
        raise ValueError(f"payloadFormat is {_shown(payload)}")
    bucket, name = _required(attributes, "bucketId"), _required(attributes, "objectId")
    try:
        whole = parts_of(f"gs://{bucket}/{name}") == (bucket, name) and not re.search(r"[\0\r\n]", name)
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(f"bucketId and objectId are {_shown(bucket)} and {_shown(name)}")
    return Notification(
        kind=KINDS[event],
        uri=f"gs://{bucket}/{name}",
        generation=_generation("objectGeneration", _required(attributes, "objectGeneration")),
        event_time=_time(_required(attributes, "eventTime")),
        overwritten_by=_optional_generation(attributes, "overwrittenByGeneration"),
        overwrote=_optional_generation(attributes, "overwroteGeneration"),
    )


def _required(attributes: Mapping[str, str], name: str) -> str:
    if not attributes.get(name):
        raise ValueError(f"it has no {name}")
    return attributes[name]


def _optional_generation(attributes: Mapping[str, str], name: str) -> str | None:
    return _generation(name, attributes[name]) if attributes.get(name) else None


def _generation(name: str, value: str) -> str:
    if not re.fullmatch(r"[0-9]{1,19}", value):
        raise ValueError(f"{name} is {_shown(value)}, not a number")
    return value


def _time(value: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"eventTime is {_shown(value)}, not a time") from error
    if time.tzinfo is None:
        raise ValueError(f"eventTime is {_shown(value)}, without a time zone")
    try:
        return time.astimezone(datetime.UTC)
    except OverflowError as error:  # on the first or the last day that there is
        raise ValueError(f"eventTime is {_shown(value)}, not a time") from error


def _shown(value: str) -> str:
    return repr(value[:_SHOWN])


def sources_of(notification: Notification) -> list[Source]:
    """The videos that a notification concerns, each as it is in the bucket now; often none.

    A video that came gives its source, of etag "" if it has gone since: reading it then ends as a dead letter. A
    side-car that came gives the videos with its stem. All else gives nothing: what went is the caller's to record.

    Raises:
      Refused, StorageError: the bucket cannot be looked at; see `transforms.objects`.
    """
    uri = notification.uri
    is_side_car = posixpath.splitext(uri)[1] in SIDE_CAR_SUFFIXES
    if notification.kind != "finalize" or not (is_media(uri) or is_side_car):
        return []
    try:
        listed = beside(uri)
    except FileNotFoundError:  # the bucket has gone, too
        listed = {}
    if is_media(uri):
        return [object_source(uri, listed)]
    return [object_source(one, listed) for one in sorted(listed) if is_media(one) and stem_of(one) == stem_of(uri)]
