"""Cloud Storage in a process of its own: gcp-storage-emulator's JSON API, its promises kept, and the XML API beside it.

    python tests/gcs_server.py        # "open" on standard input -> the URL of a new server with one bucket, `bucket`

A process of its own because deltalake holds Python's lock in some calls (`DeltaTable.is_deltatable`): a server in the
same process could never answer these. Tests reach it through `gcs_emulator.Bucket`, by requests below /_test/.
"""

from __future__ import annotations

import functools
import http.client
import http.server
import io
import json
import logging
import re
import sys
import threading
import time
import urllib.parse
from typing import Any

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler, Router
from gcs_store import Store
from gcs_xml import Told, Uploads, XmlApi, after_token, page_of, range_of, token_of, xml_of

#: How a test may make it fail; `gcs_emulator.Bucket` says what each does. A hook is the URL that is told, or None.
SWITCHES: dict[str, Any] = {
    "refuse": None,
    "lenient": False,
    "break_off_after": None,
    "stall": 0.0,
    "page_size": 1000,
    "before_read": None,
    "before_write": None,
    "after_write": None,
}
_HOOK_TIMEOUT_S = 60.0
_JSON = re.compile(r"/(storage/v1|upload|download|batch|resumable|b)(/|$)")
_ONE = re.compile(r"(?:/download)?(?:/storage/v1)?/b/([^/]+)/o/([^/]+)")
_LISTING = re.compile(r"(?:/storage/v1)?/b/([^/]+)/o")


# It tells of each request that isn't answered 200.
logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
logging.getLogger("api").setLevel(logging.CRITICAL)


class Service:
    """One server with one bucket; `asked` has one (method, path) a request for objects."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[tuple[str, str]] = []
        self.switches = dict(SWITCHES)
        self.uploads = Uploads()
        self.server = _Listening(("127.0.0.1", port), functools.partial(Handler, self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.store = Store(
            self.url, functools.partial(self.before, "write"), functools.partial(self.hook, "after_write")
        )
        buckets.create_bucket("bucket", self.store)

    def before(self, what: str, name: str) -> None:
        """Call `before_read` or `before_write`. Raises Told where that made the service refuse."""
        self.hook(f"before_{what}", name)
        if self.switches["refuse"] is not None:
            raise Told(self.switches["refuse"], "told by the test")

    def hook(self, which: str, name: str) -> None:
        """Ask the test's process to call a hook. Raises ConnectionAbortedError if the hook raised: no answer then."""
        if self.switches[which] is None:
            return
        parts = urllib.parse.urlsplit(self.switches[which])
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_HOOK_TIMEOUT_S)
        connection.request("POST", f"/{which}", body=name.encode())
        if connection.getresponse().status != 204:
            raise ConnectionAbortedError(f"{which}({name!r}) raised")


class _Listening(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that left, or was left
            super().handle_error(request, client_address)


class Handler(XmlApi, RequestHandler):
    """One request: the tests' own, the XML API's, or the JSON API's, which the emulator answers where it can."""

    def __init__(self, service: Service, *args: Any) -> None:
        self.service = service
        super().__init__(service.store, *args)

    def _serve(self) -> None:
        # Whole, whatever the answer: a client that is refused while it still sends sees a broken connection, no status.
        body = self._read_body()
        self.rfile = io.BytesIO(body)
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        if parts.path.startswith("/_test/"):
            return self._control(parts.path.removeprefix("/_test/"), body)
        self.is_json = parts.path == "/" or _JSON.match(parts.path) is not None
        switches = self.service.switches
        bucket, _, name = parts.path[1:].partition("/")
        # Google's client looks at the bucket itself, too, from a thread of its own, for its telemetry.
        if "/o" in parts.path.removeprefix("/upload").removeprefix("/storage/v1/b/") or not self.is_json:
            self.service.asked.append((self.command, parts.path))
        time.sleep(switches["stall"])
        try:
            content = (
                parts.path.startswith("/download/") or query.get("alt") == "media" or not (self.is_json or not name)
            )
            if switches["refuse"] is not None and not (self.command == "GET" and content):  # a read: after its hook
                raise Told(switches["refuse"], "told by the test")
            if self.is_json:
                self._serve_json(parts.path, query, body)
            else:
                self.serve_xml(urllib.parse.unquote(bucket), urllib.parse.unquote(name), query, body)
        except Told as told:
            self._send_error(told.status, str(told))
        except NotFound:
            self._send_error(404, "not found")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def _serve_json(self, path: str, query: dict[str, str], body: bytes) -> None:
        unknown = [name for name in query if name.startswith("if") and name != "ifGenerationMatch"]
        if unknown or (path.startswith("/batch") and b"GenerationMatch" in body):
            raise Told(501, f"this shim doesn't keep {unknown or 'conditions in a batch'}")
        store, one, listing = self.service.store, _ONE.fullmatch(path), _LISTING.fullmatch(path)
        store.wanted = query.get("ifGenerationMatch")
        if self.command == "GET" and one and "softDeleted" not in query:
            bucket, name = (urllib.parse.unquote(part) for part in one.groups())
            if path.startswith("/download/") or query.get("alt") == "media":
                self.service.before("read", name)
                resource, content = store.read(bucket, name, query.get("generation"))
                hashes = f"crc32c={resource['crc32c']},md5={resource['md5Hash']}"
                versions = {"x-goog-generation": resource["generation"], "ETag": resource["etag"]}
                return self.send_content(resource, content, versions | {"X-Goog-Hash": hashes})
            return self._send_json(store.read(bucket, name, query.get("generation"))[0])
        if self.command == "GET" and listing and not {"matchGlob", "softDeleted"} & query.keys():
            return self._list_json(urllib.parse.unquote(listing[1]), query)
        Router(self).handle(self.command)

    def _list_json(self, bucket: str, query: dict[str, str]) -> None:
        resources = self.service.store.resources(bucket)
        begin, end = query.get("startOffset", ""), query.get("endOffset")
        names = [name for name in resources if name >= begin and (not end or name < end)]
        limit = max(1, min(int(query.get("maxResults", 1000)), self.service.switches["page_size"]))
        after = after_token(query.get("pageToken", ""))
        page = page_of(names, query.get("prefix", ""), query.get("delimiter", ""), after, limit)
        told = {"kind": "storage#objects", "prefixes": page.prefixes, "items": [resources[n] for n in page.names]}
        self._send_json(told if page.next_after is None else told | {"nextPageToken": token_of(page.next_after)})

    def _control(self, path: str, body: bytes) -> None:
        what, _, quoted = path.partition("/")
        name, store = urllib.parse.unquote(quoted), self.service.store
        store.wanted = None
        try:
            if what == "asked":
                self.service.asked, asked = [], self.service.asked
                return self._send_json(asked)
            if what == "switches":
                self.service.switches |= json.loads(body)
                store.lenient = self.service.switches["lenient"]
            elif self.command == "PUT":
                return self._send_json(store.write("bucket", name, body, "video/mp4", quietly=True))
            elif self.command == "DELETE":
                store.delete_file("bucket", name)
            elif name:
                return self._send_json(store.get_file_obj("bucket", name))
            else:
                return self._send_json(sorted(store.resources("bucket")))
            self.send(204)
        except NotFound:
            self.send(404)

    def send_content(self, resource: dict[str, Any], content: bytes, headers: dict[str, str]) -> None:
        """Answer with an object's content, or the range of it that is asked for."""
        cut = range_of(self.headers.get("Range"), len(content))
        headers |= {"Content-Type": resource.get("contentType") or "application/octet-stream", "Accept-Ranges": "bytes"}
        if cut:
            headers["Content-Range"] = f"bytes {cut[0]}-{cut[1] - 1}/{len(content)}"
            headers.pop("X-Goog-Hash", None)  # of the whole object: clients check what they got against it
        for name, told in (resource.get("metadata") or {}).items():
            headers[f"x-goog-meta-{name}"] = str(told)
        sent = content[slice(*cut)] if cut else content
        limit = None
        if self.command == "GET":
            limit, self.service.switches["break_off_after"] = self.service.switches["break_off_after"], None
        self.send(206 if cut else 200, sent, headers, limit)

    def send(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None, limit: int | None = None
    ) -> None:
        """Answer; of `content` only `limit` bytes arrive."""
        self.send_response(status)
        for name, told in (headers or {}).items():
            self.send_header(name, told)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:limit])

    def _send_json(self, told: Any) -> None:
        self.send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _send_error(self, status: int, why: str) -> None:
        if status == 304:
            return self.send(304)
        if self.is_json:
            body = json.dumps({"error": {"code": status, "message": why}}).encode()
            return self.send(status, body, {"Content-Type": "application/json"})
        code = {404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}.get(status, "Error")
        self.send(status, xml_of("Error", [("Code", code), ("Message", why)]), {"Content-Type": "application/xml"})

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        del self.headers["Transfer-Encoding"]
        self.headers["Content-Length"] = str(len(body))
        return body


def main() -> None:
    """Open and close servers as standard input says, until it ends."""
    open_now: dict[str, Service] = {}
    for line in sys.stdin:
        verb, _, url = line.strip().partition(" ")
        if verb == "open":
            service = Service()
            threading.Thread(target=service.server.serve_forever, args=(0.05,), daemon=True).start()
            open_now[service.url] = service
            print(service.url, flush=True)
        elif verb == "close":
            server = open_now.pop(url).server
            server.shutdown()
            server.server_close()
            print("closed", flush=True)


if __name__ == "__main__":
    main()
