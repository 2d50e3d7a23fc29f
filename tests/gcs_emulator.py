"""Cloud Storage in this process: gcp-storage-emulator, taught the conditions that the real service keeps.

    def test_something(gcs):
        gcs.put("uploads/a.mp4", b"...")                    # -> its generation
        stat("gs://bucket/uploads/a.mp4")                   # STORAGE_EMULATOR_HOST leads here

The emulator itself ignores `ifGenerationMatch`; `lenient` lets it. `before_read` is called with the name of an object
whose content is asked for, before it is answered: the moment to overwrite or remove it. `refuse` is the status that
all requests are answered with; after `break_off_after` bytes the next answer's connection breaks off.
"""

from __future__ import annotations

import functools
import http.server
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator

import pytest


class Bucket:
    """A server with one bucket, `bucket`; `asked` has one (method, path) a request for objects."""

    def __init__(self) -> None:
        from gcp_storage_emulator.handlers import buckets
        from gcp_storage_emulator.server import RequestHandler
        from gcp_storage_emulator.storage import Storage

        self.asked: list[tuple[str, str]] = []
        self.lenient = False
        self.before_read: Callable[[str], None] = lambda name: None
        self.refuse: int | None = None
        self.break_off_after: int | None = None
        self.storage = Storage(use_memory_fs=True)
        buckets.create_bucket("bucket", self.storage)
        bucket = self

        class Conditional(RequestHandler):
            def do_GET(self) -> None:
                parts = urllib.parse.urlsplit(self.path)
                # Google's client looks at the bucket itself, too, from a thread of its own, for its telemetry.
                if "/o" in parts.path.removeprefix("/download").removeprefix("/storage/v1/b/"):
                    bucket.asked.append(("GET", parts.path))
                condition = urllib.parse.parse_qs(parts.query).get("ifGenerationMatch")
                name = urllib.parse.unquote(parts.path.partition("/o/")[2])
                if parts.path.startswith("/download/"):
                    bucket.before_read(name)
                if bucket.refuse is not None:
                    self._answer(bucket.refuse)
                elif condition and name in bucket and not bucket.lenient and condition[0] != bucket.generation(name):
                    self._answer(412)
                elif parts.path.startswith("/download/") and bucket.break_off_after is not None:
                    self._break_off(bucket.storage.get_file("bucket", name), bucket.break_off_after)
                    bucket.break_off_after = None
                else:
                    super().do_GET()

            def _break_off(self, content: bytes, after: int) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:after])

            def _answer(self, status: int) -> None:
                body = json.dumps({"error": {"code": status, "message": "told by the test"}}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Conditional, self.storage))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __contains__(self, name: str) -> bool:
        return name in self.storage.objects.get("bucket", {})

    def put(self, name: str, content: bytes | str) -> str:
        """Write an object, or a new version of it; return its generation."""
        from gcp_storage_emulator.handlers import objects

        raw = content.encode() if isinstance(content, str) else content
        made = objects._make_object_resource(self.url, "bucket", name, "video/mp4", str(len(raw)))
        self.storage.create_file("bucket", name, raw, objects._checksums(raw, made))
        return made["generation"]

    def remove(self, name: str) -> None:
        self.storage.delete_file("bucket", name)

    def generation(self, name: str) -> str:
        return self.storage.get_file_obj("bucket", name)["generation"]


def serve_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A server for one test, to which the clients of this process go."""
    pytest.importorskip("google.cloud.storage", reason="needs the extra gcp")
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator of the extra dev")
    bucket = Bucket()
    threading.Thread(target=bucket.server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
    yield bucket
    bucket.server.shutdown()
    bucket.server.server_close()
