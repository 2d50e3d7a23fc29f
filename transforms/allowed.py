"""Which buckets a job may read: those that its inputs name, and those that were allowed beside them.

    buckets = named_by(["gs://uploads/a.mp4", "list.jsonl"], allowed=["shared"])      # {"uploads", "shared"}
    why_not("gs://elsewhere/a.mp4", buckets)       # "gs://elsewhere/a.mp4 is in a bucket that ...", or None

A job reads with the rights of whoever runs it, and a manifest or a notification is somebody else's text. Were its word
enough, a row could have anything that those rights reach read, captioned and kept in the dataset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from transforms.objects import SCHEME, is_object, parts_of

#: Allows every bucket.
ANY = "*"


def bucket_of(text: str) -> str:
    """Return the bucket that somebody means by NAME, gs://NAME or gs://NAME/, or `ANY`. Raises ValueError if none."""
    name = text.removeprefix(SCHEME).removesuffix("/")
    if text == ANY:
        return ANY
    if "/" in name:
        raise ValueError(f"{text!r} names more than a bucket; a bucket is allowed as a whole: {name.partition('/')[0]}")
    try:
        return parts_of(f"{SCHEME}{name}")[0]
    except ValueError as error:
        raise ValueError(f"{text!r} is no bucket's name; write it like my-bucket, or {ANY} for any") from error


def named_by(inputs: Iterable[str], allowed: Iterable[str] = ()) -> frozenset[str]:
    """The buckets that inputs name themselves, and those that are allowed beside them.

    What is no gs:// URI names none: neither a manifest on this machine, whose rows may be a stranger's, nor a
    subscription.

    Raises:
      ValueError: one of those allowed is no bucket's name.
    """
    named = set(map(bucket_of, allowed))
    for one in filter(is_object, inputs):
        try:
            named.add(parts_of(one)[0])
        except ValueError:
            continue  # Told when it is looked into.
    return frozenset(named)


def told_by(allowed: Collection[str]) -> frozenset[str]:
    """The buckets that a subscription's notifications may tell of: those allowed, any where none are.

    Nothing else says which buckets tell a subscription: whoever may publish to its topic decides.
    """
    return named_by((), allowed or (ANY,))


def why_not(uri: str, buckets: Collection[str]) -> str | None:
    """Say why a URI may not be read, and what would allow it; None where it may, or is no object's."""
    if not is_object(uri) or ANY in buckets:
        return None
    try:
        bucket = parts_of(uri)[0]
    except ValueError as error:
        return str(error)
    if bucket in buckets:
        return None
    return f"{uri} is in a bucket that no --input names; if you trust who named it, add --allow-bucket {bucket}"
