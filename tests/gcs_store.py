"""The objects of `gcs_server`: each write under a lock, by its condition, and with a generation never given twice.

store.wanted = "0"                                              # this thread's request: it must not be there
store.write("bucket", "a.mp4", content, "video/mp4")            # or Told(412)
"""

from __future__ import annotations

import copy
import threading
import time
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.storage import Storage
from gcs_xml import Told


class Store(Storage):
    """The emulator's objects, kept by the rules; `before` and `after` are called round each write of a request."""

    def __init__(self, url: str, before: Callable[[str], None], after: Callable[[str], None]) -> None:
        super().__init__(use_memory_fs=True)
        self.lenient = False
        self._url, self._before, self._after = url, before, after
        self._lock = threading.RLock()
        self._asking = threading.local()
        self._last = 0
        self._conditions: dict[str, str | None] = {}

    @property
    def wanted(self) -> str | None:
        """The generation that the request of this thread must find: "0" for none at all, None for any."""
        return getattr(self._asking, "wanted", None)

    @wanted.setter
    def wanted(self, generation: str | None) -> None:
        self._asking.wanted = generation

    def write(self, bucket: str, name: str, content: bytes, content_type: str, quietly: bool = False) -> dict[str, Any]:
        """Store an object as a request does; `quietly` calls no hooks and knows no condition."""
        made = objects._make_object_resource("", bucket, name, content_type, str(len(content)))
        made = objects._checksums(content, made)
        if quietly:
            self._store_object(bucket, name, content, made, None)
        else:
            self.create_file(bucket, name, content, made)
        return made

    def create_file(
        self, bucket: str, name: str, content: bytes, resource: dict[str, Any], upload: str | None = None
    ) -> None:
        expected = self._conditions[upload] if upload else self.wanted
        # Without the lock: a hook may write, too.
        self._before(name)
        self._store_object(bucket, name, content, resource, expected, upload)
        self._after(name)

    def _store_object(
        self,
        bucket: str,
        name: str,
        content: bytes,
        resource: dict[str, Any],
        expected: str | None,
        upload: str | None = None,
    ) -> None:
        with self._lock:
            self._check(bucket, name, expected)
            self._last = max(self._last + 1, time.time_ns() // 1000)
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            quoted = urllib.parse.quote(name, safe="")
            link = f"{self._url}/download/storage/v1/b/{bucket}/o/{quoted}?generation={self._last}&alt=media"
            resource |= {"generation": str(self._last), "id": f"{bucket}/{name}/{self._last}", "mediaLink": link}
            resource |= {"timeCreated": now, "updated": now, "timeStorageClassUpdated": now}
            super().create_file(bucket, name, content, resource, upload)

    def create_resumable_upload(self, bucket: str, name: str, resource: dict[str, Any]) -> str:
        with self._lock:
            self._check(bucket, name, self.wanted)
            # Its own id is the time: two at once could share one.
            upload = f"{super().create_resumable_upload(bucket, name, resource)}-{len(self._conditions)}"
            self.resumable[upload] = resource
            self._conditions[upload] = self.wanted
        return upload

    def delete_file(self, bucket: str, name: str) -> None:
        with self._lock:
            if name not in self.objects.get(bucket, {}):
                raise NotFound
            self._check(bucket, name, self.wanted)
            super().delete_file(bucket, name)

    def patch_object(self, bucket: str, name: str, resource: dict[str, Any]) -> None:
        with self._lock:
            self._check(bucket, name, self.wanted)
            super().patch_object(bucket, name, resource)

    def get_file_obj(self, bucket: str, name: str) -> dict[str, Any]:
        with self._lock:
            return copy.deepcopy(super().get_file_obj(bucket, name))

    def read(self, bucket: str, name: str, generation: str | None = None) -> tuple[dict[str, Any], bytes]:
        """Look at an object and its content at one instant.

        Raises:
          NotFound: it is not there, or not of this generation. Told(412): it is not of the generation `wanted`.
        """
        with self._lock:
            resource = self.get_file_obj(bucket, name)
            if not self.lenient:
                self._check(bucket, name, self.wanted)
                if generation not in (None, resource["generation"]):
                    raise NotFound
            return resource, self.get_file(bucket, name, show_error=False)

    def resources(self, bucket: str) -> dict[str, dict[str, Any]]:
        """All objects of a bucket at one instant."""
        with self._lock:
            if bucket not in self.buckets:
                raise NotFound
            return copy.deepcopy(self.objects.get(bucket, {}))

    def _check(self, bucket: str, name: str, expected: str | None) -> None:
        there = self.objects.get(bucket, {}).get(name, {}).get("generation", "0")
        if expected not in (None, there):
            raise Told(412, f"{name} has generation {there}, not {expected}")

    def _object_path(self, bucket: str, name: str) -> str:
        return f"{bucket}/{self.safe_id(name)}"  # a//b and a/b are two objects, and .. is a name

    def _bucket_soft_delete_retention_seconds(self, bucket: str) -> int:
        return 0  # what is deleted is gone: nothing here restores it

    def _write_config_to_file(self) -> None:
        """All of it at each write would make a thousand objects slow; memory is enough."""
