"""Cloud Storage on this machine, by both of its APIs over the same objects: Google's client speaks JSON, deltalake XML.

    def test_something(gcs):
        gcs.put("uploads/a.mp4", b"...")                                # -> its generation
        stat("gs://bucket/uploads/a.mp4")                               # STORAGE_EMULATOR_HOST leads here
        deltalake.write_deltalake("gs://bucket/ds/clips", rows)         # GOOGLE_SERVICE_ACCOUNT_KEY does

    eval "$(python tests/gcs_emulator.py --port 0 | tee /dev/stderr)"   # by hand; see main()

The server (`gcs_server`) runs in a process of its own, one for all tests, and opens a port of its own for each.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import importlib.util
import json
import pathlib
import shlex
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

#: What else may say where deltalake goes: the first two beside a key are an error of object_store, the third wins.
_RIVALS = ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_BASE_URL")
_CONTROL_TIMEOUT_S = 60.0
_HOOKS = ("before_read", "before_write", "after_write")
_running: list[subprocess.Popen[str]] = []


def environment(url: str) -> dict[str, str]:
    """The variables that lead Google's client and deltalake (object_store) to a server, in any process."""
    account = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"STORAGE_EMULATOR_HOST": url, "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}


class Bucket:
    """A server with one bucket, `bucket`, and how a test makes it fail.

    Attributes:
      refuse: the status that all requests are answered with.
      lenient: reads ignore the generation that they ask for, as emulators do.
      break_off_after: after so many bytes the next answer with an object's content breaks off.
      stall: seconds that each request waits before it is looked at.
      page_size: the most names in a page of a listing.
      before_read: called with an object's name before its content is sent: the moment to overwrite or remove it.
      before_write: called with an object's name before a write of it is stored, by either API.
      after_write: the same once it is stored, before that is answered.

    Hooks run in a thread of the test's process; a request whose hook raises gets no answer at all. Writes and removals
    by this class call none. Some calls of deltalake hold Python's lock (`is_deltatable`): no hook can run meanwhile.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._asked: list[tuple[str, str]] = []
        self._hooks: dict[str, Callable[[str], Any]] = {}
        self._listener: http.server.ThreadingHTTPServer | None = None

    refuse: int | None
    lenient: bool
    break_off_after: int | None
    stall: float
    page_size: int
    before_read: Callable[[str], Any]
    before_write: Callable[[str], Any]
    after_write: Callable[[str], Any]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOOKS:
            self._hooks[name] = value
            # None: this process is asked no more, and what holds Python's lock while it writes need not wait for it.
            self._control("POST", "switches", json.dumps({name: self._hooks_url() if value else None}).encode())
        elif name in Bucket.__annotations__:
            self._control("POST", "switches", json.dumps({name: value}).encode())
        else:
            object.__setattr__(self, name, value)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """One (method, path) for each request for objects since the server was opened, or this list was cleared."""
        self._asked += [(method, path) for method, path in json.loads(self._control("POST", "asked"))]
        return self._asked

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in json.loads(self._control("GET", "objects")) if name.startswith(prefix)]

    def put(self, name: str, content: bytes | str) -> str:
        """Write an object, or a new version of it; return its generation."""
        raw = content.encode() if isinstance(content, str) else content
        return json.loads(self._control("PUT", f"objects/{urllib.parse.quote(name, safe='')}", raw))["generation"]

    def remove(self, name: str) -> None:
        self._control("DELETE", f"objects/{urllib.parse.quote(name, safe='')}")

    def generation(self, name: str) -> str:
        return json.loads(self._control("GET", f"objects/{urllib.parse.quote(name, safe='')}"))["generation"]

    def xml(
        self, method: str, name: str, body: bytes = b"", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Make one request of the XML API of NAME or NAME?QUERY; an underscore in a header's name is a hyphen."""
        path = name if name.startswith("?") else f"/{urllib.parse.quote(name, safe='?=&')}"
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=_CONTROL_TIMEOUT_S)
        connection.request(method, f"/bucket{path}", body, {key.replace("_", "-"): headers[key] for key in headers})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def close(self) -> None:
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()

    def _control(self, method: str, path: str, body: bytes = b"") -> bytes:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=_CONTROL_TIMEOUT_S)
        try:
            connection.request(method, f"/_test/{path}", body)
            answer = connection.getresponse()
            if answer.status == 404:
                raise KeyError(urllib.parse.unquote(path))
            return answer.read()
        finally:
            connection.close()

    def _hooks_url(self) -> str:
        """Where the server asks for a hook: a listener in this process, there from the first hook on."""
        if self._listener is None:
            hooks = self._hooks

            class Calls(http.server.BaseHTTPRequestHandler):
                def do_POST(self) -> None:
                    name = self.rfile.read(int(self.headers["Content-Length"])).decode()
                    status = 500
                    try:
                        hooks[self.path[1:]](name)
                        status = 204
                    finally:
                        self.send_response(status)
                        self.end_headers()

                def log_message(self, format: str, *args: Any) -> None:
                    pass

            self._listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Calls)
            threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self._listener.server_port}"


def serve_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A server for one test, to which the clients of this process and of its children go."""
    pytest.importorskip("google.cloud.storage", reason="needs the extra gcp")
    if importlib.util.find_spec("gcp_storage_emulator") is None:
        pytest.skip("needs gcp-storage-emulator of the extra dev")
    bucket = Bucket(_tell("open"))
    for rival in _RIVALS:
        monkeypatch.delenv(rival, raising=False)
    for name, value in environment(bucket.url).items():
        monkeypatch.setenv(name, value)
    yield bucket
    _tell(f"close {bucket.url}")
    bucket.close()


def _tell(line: str) -> str:
    """Say a line to the server's process, started once and ended with this one's end of the pipe; return its answer."""
    if not _running:
        command = [sys.executable, str(pathlib.Path(__file__).with_name("gcs_server.py"))]
        # In a session of its own: Ctrl-C is for the tests, which then let go of the pipe.
        pipe = subprocess.PIPE
        _running.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True))
    process = _running[0]
    assert process.stdin and process.stdout
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    answer = process.stdout.readline().strip()
    if not answer:
        raise RuntimeError("tests/gcs_server.py ended; its last words stand above")
    return answer


def main() -> None:
    """Serve gs://bucket until interrupted; print the exports that lead there.

    python tests/gcs_emulator.py --port 0 > exports.sh &    # then: . ./exports.sh; reelscribe ... --output gs://bucket/ds
    """
    parser = argparse.ArgumentParser(
        description="Cloud Storage on this machine, in memory, with one bucket: gs://bucket"
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes any that is free")
    from gcs_server import Service

    service = Service(parser.parse_args().port)
    for name, value in environment(service.url).items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"unset {' '.join(_RIVALS)}", flush=True)
    try:
        service.server.serve_forever()
    except KeyboardInterrupt:
        service.server.server_close()


if __name__ == "__main__":
    main()
