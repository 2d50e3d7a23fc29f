"""A vLLM server on this machine, started by Beam's handler in a keeper process that ends with us, however we end.

    with VllmServer("models/qwen", {"dtype": "auto"}) as server:
        Endpoint(server.url, "models/qwen", terms, find=server.find)

The keeper and the server are a process group of their own. The keeper's standard input is our lifeline: when it closes,
the group is ended. Beam imports vllm where it starts the server, and that must not happen in a worker.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO, Any, Self

from model_handlers.endpoint_answers import EndpointError

#: vLLM ends its own processes when asked to, which takes a moment.
GRACE_S = 10.0
#: What the server said last, for the error of one that does not start.
LINES = 40
Flags = Mapping[str, str | None]


class VllmServer:
    """A server that answers at `url` for as long as this lives. Starting takes minutes: the weights are loaded.

    Args:
      model: a directory or a hub id. flags: of `python -m vllm.entrypoints.openai.api_server`, without dashes; None is
        a flag without a value.

    Raises:
      EndpointError: a package is missing, or the server does not start; its last lines are a note of the error.
    """

    def __init__(self, model: str, flags: Flags):
        for package in ("vllm", "openai"):
            if importlib.util.find_spec(package) is None:
                raise EndpointError(f"a teacher by vLLM needs {package} on every worker: pip install vllm openai")
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        self._lock = threading.Lock()
        # -P keeps the working directory out of the path: a file json.py there would be imported.
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "model_handlers.vllm_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
            text=True,
        )
        try:
            aloud = logging.getLogger().isEnabledFor(logging.INFO)
            self.url = self._ask({"model": model, "flags": dict(flags), "aloud": aloud})
        except BaseException:
            self.close()
            raise

    def find(self) -> str:
        """See that the server answers, starting it anew where it has ended; its url, which may have changed.

        Raises:
          EndpointError: it does not start.
        """
        self.url = self._ask({})
        return self.url

    def close(self) -> None:
        """End the server."""
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(GRACE_S + 5.0)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        with contextlib.suppress(ProcessLookupError):
            # Of a keeper that was killed, the server is left.
            os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.stdout.close()

    def _ask(self, request: dict[str, Any]) -> str:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        with self._lock:
            try:
                self._keeper.stdin.write(json.dumps(request) + "\n")
                self._keeper.stdin.flush()
                line = self._keeper.stdout.readline()
            except (OSError, ValueError) as error:
                raise EndpointError(f"the process that keeps the vLLM server is gone: {error}") from error
        told = json.loads(line) if line else {"error": "the process that keeps it has ended", "said": []}
        if "port" in told:
            return f"http://localhost:{told['port']}/v1"
        failed = EndpointError(f"the vLLM server does not start: {told['error']}")
        failed.add_note("\n".join(told["said"]))
        raise failed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Said(logging.Handler):
    """Remembers the last lines of the log, in which Beam repeats what the server prints."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: collections.deque[str] = collections.deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def keep() -> None:
    """The keeper: starts the server and answers, a line a request, at which port it is."""
    # Whatever is printed here goes to the log; answers have the pipe for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: None)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, lines), daemon=True).start()
    request = json.loads(lines.get())
    said = _Said()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(said)
    if request["aloud"]:
        root.addHandler(logging.StreamHandler(sys.stderr))

    server: Any = None
    while True:
        try:
            if server is None:
                server = _start(request["model"], request["flags"])
            else:
                server.check_connectivity()
            told = {"port": server.get_server_port()}
        except Exception as error:
            told = {"error": " ".join(str(error).split()), "said": list(said.lines)}
        answers.write(json.dumps(told) + "\n")
        answers.flush()
        lines.get()


def _start(model: str, flags: dict[str, str | None]) -> Any:
    from apache_beam.ml.inference.vllm_inference import VLLMChatModelHandler

    return VLLMChatModelHandler(model, vllm_server_kwargs=flags).load_model()


def _listen(lifeline: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Pass requests on, also while the server is starting; at the lifeline's end, end the group."""
    for line in lifeline:
        lines.put(line)
    os.killpg(0, signal.SIGTERM)
    until = time.monotonic() + GRACE_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    keep()
