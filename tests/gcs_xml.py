"""Cloud Storage's XML API, as far as object_store (and so deltalake) speaks it, over what `gcs_server` stores.

    GET /bucket?list-type=2&prefix=ds%2F          PUT /bucket/ds%2Fa.parquet      x-goog-if-generation-match: 0

A mixin for the server's request handler: `serve_xml` answers one request. Objects, generations and conditions are the
store's, so that the two APIs see and refuse the same.
"""

from __future__ import annotations

import base64
import dataclasses
import email.utils
import hashlib
import re
import threading
import urllib.parse
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

#: All parts but the last have at least this size (cloud.google.com/storage/docs/multipart-uploads).
MIN_PART_BYTES = 5 * 2**20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Told(Exception):
    """A request ends with this status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Page:
    """A part of a listing: names of objects, prefixes up to the delimiter, and where the next page goes on."""

    names: tuple[str, ...]
    prefixes: tuple[str, ...]
    next_after: str | None


def page_of(names: Iterable[str], prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """Cut one page out of all names: those behind `after`, which is a name or a prefix that was listed last."""
    found: list[str] = []
    prefixes: list[str] = []
    last = after
    for name in sorted(names):
        rolled_up = delimiter and after.endswith(delimiter) and len(after) > len(prefix) and name.startswith(after)
        if not name.startswith(prefix) or name <= after or rolled_up:
            continue
        head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        entry = prefix + head + cut if cut else name
        if prefixes and entry == prefixes[-1]:
            continue
        if len(found) + len(prefixes) == limit:
            return Page(tuple(found), tuple(prefixes), last)
        (prefixes if cut else found).append(entry)
        last = entry
    return Page(tuple(found), tuple(prefixes), None)


def token_of(after: str | None) -> str | None:
    """Make the opaque token by which a client asks for the next page."""
    return None if after is None else base64.urlsafe_b64encode(after.encode()).decode()


def after_token(token: str) -> str:
    return base64.urlsafe_b64decode(token).decode()


def range_of(header: str | None, size: int) -> tuple[int, int] | None:
    """Translate a Range header to [start, stop); None asks for all. Raises Told(416) where nothing is there."""
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise Told(416, f"{header} of an object of {size} bytes")
    return start, stop


def etag_of(resource: dict[str, Any]) -> str:
    """The XML API's ETag of an object written in one piece: its MD5, quoted."""
    return f'"{base64.b64decode(resource["md5Hash"]).hex()}"'


def modified_of(resource: dict[str, Any]) -> str:
    return email.utils.format_datetime(datetime.fromisoformat(resource["updated"]), usegmt=True)


def xml_of(tag: str, fields: Iterable[tuple[str, str]], more: str = "") -> bytes:
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields)
    return f'<?xml version="1.0" encoding="UTF-8"?><{tag}>{inner}{more}</{tag}>'.encode()


def parts_named(body: bytes) -> list[tuple[int, str]]:
    """Read the numbers and ETags of CompleteMultipartUpload."""
    try:
        parts = ElementTree.fromstring(body).findall("{*}Part")
        return [(int(part.findtext("{*}PartNumber", "")), part.findtext("{*}ETag", "")) for part in parts]
    except (ElementTree.ParseError, ValueError) as error:
        raise Told(400, f"MalformedXML: {error}") from error


def whole_of(parts: dict[int, bytes], named: list[tuple[int, str]]) -> bytes:
    """Join the parts that a client names, as the service does. Raises Told(400) where they aren't those it has."""
    if not named or [number for number, _ in named] != sorted({number for number, _ in named}):
        raise Told(400, "InvalidPartOrder")
    for number, etag in named:
        if number not in parts or etag.strip('"') != hashlib.md5(parts[number]).hexdigest():
            raise Told(400, f"InvalidPart: {number}")
    if any(len(parts[number]) < MIN_PART_BYTES for number, _ in named[:-1]):
        raise Told(400, "EntityTooSmall")
    return b"".join(parts[number] for number, _ in named)


class Uploads:
    """Multipart uploads that haven't been completed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[tuple[str, str, str], dict[int, bytes]] = {}

    def begin(self, bucket: str, name: str) -> str:
        upload = uuid.uuid4().hex
        with self._lock:
            self._parts[bucket, name, upload] = {}
        return upload

    def parts(self, bucket: str, name: str, upload: str) -> dict[int, bytes]:
        with self._lock:
            if (bucket, name, upload) not in self._parts:
                raise Told(404, f"NoSuchUpload: {upload}")
            return self._parts[bucket, name, upload]

    def end(self, bucket: str, name: str, upload: str) -> None:
        with self._lock:
            self._parts.pop((bucket, name, upload), None)

    def __len__(self) -> int:
        return len(self._parts)


class XmlApi:
    """What the request handler answers to a path /BUCKET or /BUCKET/NAME; the attributes are the handler's."""

    command: str
    headers: Any
    service: Any
    send: Any
    send_content: Any

    def serve_xml(self, bucket: str, name: str, query: dict[str, str], body: bytes) -> None:
        """Answer one request.

        Raises:
          Told: by its status. NotFound: there is no such bucket or object.
        """
        kept = {"x-goog-if-generation-match"}
        if unknown := [k for k in self.headers if k.lower().startswith("x-goog-if-") and k.lower() not in kept]:
            raise Told(501, f"this shim doesn't keep {unknown[0]}")
        self.service.store.wanted = self.headers.get("x-goog-if-generation-match")
        if not name:
            if self.command != "GET":
                raise Told(501, "buckets are listed, nothing else")
            return self._list(bucket, query)
        if self.command in ("GET", "HEAD"):
            return self._read(bucket, name, query)
        if self.command == "DELETE" and "uploadId" in query:
            self.service.uploads.end(bucket, name, query["uploadId"])
            return self.send(204)
        if self.command == "DELETE":
            self.service.store.delete_file(bucket, name)
            return self.send(204)
        if self.command == "POST" and "uploads" in query:
            upload = self.service.uploads.begin(bucket, name)
            fields = [("Bucket", bucket), ("Key", name), ("UploadId", upload)]
            return self.send(200, xml_of("InitiateMultipartUploadResult", fields))
        if self.command == "POST" and "uploadId" in query:
            whole = whole_of(self.service.uploads.parts(bucket, name, query["uploadId"]), parts_named(body))
            made = self._write(bucket, name, whole)
            self.service.uploads.end(bucket, name, query["uploadId"])
            fields = [("Bucket", bucket), ("Key", name), ("ETag", etag_of(made))]
            return self.send(200, xml_of("CompleteMultipartUploadResult", fields), _versions(made))
        if self.command == "PUT" and "partNumber" in query:
            self.service.uploads.parts(bucket, name, query["uploadId"])[int(query["partNumber"])] = body
            return self.send(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if self.command == "PUT" and (source := self.headers.get("x-goog-copy-source")):
            from_bucket, _, from_name = urllib.parse.unquote(source).lstrip("/").partition("/")
            made = self._write(bucket, name, self.service.store.read(from_bucket, from_name)[1])
            fields = [("ETag", etag_of(made)), ("LastModified", made["updated"])]
            return self.send(200, xml_of("CopyObjectResult", fields), _versions(made))
        if self.command == "PUT":
            return self.send(200, headers=_versions(self._write(bucket, name, body)))
        raise Told(501, f"{self.command} isn't spoken here")

    def _write(self, bucket: str, name: str, content: bytes) -> dict[str, Any]:
        content_type = self.headers.get("Content-Type", "application/octet-stream")
        return self.service.store.write(bucket, name, content, content_type)

    def _read(self, bucket: str, name: str, query: dict[str, str]) -> None:
        if self.command == "GET":
            self.service.before("read", name)
        resource, content = self.service.store.read(bucket, name, query.get("generation"))
        etag = etag_of(resource)
        if self.headers.get("If-Match", etag) not in (etag, "*"):
            raise Told(412, "If-Match")
        if self.headers.get("If-None-Match") in (etag, "*"):
            raise Told(304, "If-None-Match")
        self.send_content(resource, content, {**_versions(resource), "Last-Modified": modified_of(resource)})

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        resources = self.service.store.resources(bucket)
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = after_token(query.get("continuation-token", "")) or query.get("start-after", "")
        limit = max(1, min(int(query.get("max-keys", 1000)), self.service.switches["page_size"]))
        page = page_of(resources, prefix, delimiter, after, limit)
        more = "".join(
            f"<Contents><Key>{escape(name)}</Key><Generation>{resources[name]['generation']}</Generation>"
            f"<LastModified>{resources[name]['updated']}</LastModified><ETag>{escape(etag_of(resources[name]))}</ETag>"
            f"<Size>{resources[name]['size']}</Size></Contents>"
            for name in page.names
        )
        more += "".join(f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in page.prefixes)
        fields = [("Name", bucket), ("Prefix", prefix), ("KeyCount", str(len(page.names) + len(page.prefixes)))]
        fields += [("IsTruncated", str(page.next_after is not None).lower())]
        if page.next_after is not None:
            fields += [("NextContinuationToken", token_of(page.next_after) or "")]
        self.send(200, xml_of("ListBucketResult", fields, more))


def _versions(resource: dict[str, Any]) -> dict[str, str]:
    return {"ETag": etag_of(resource), "x-goog-generation": resource["generation"], "x-goog-metageneration": "1"}
