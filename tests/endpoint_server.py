"""A real HTTP server that plays an OpenAI-compatible endpoint, well-behaved or not.

    with EndpointServer() as server:
        server.plays[7] = [status(503), status(429, {"Retry-After": "1"})]     # for clip 7, then it answers well
        settings = EndpointSettings(url=server.url, weights="tiny")

It looks at the pictures: clip n of `write_clips` is painted in shade n, and the caption names what was seen, so that a
caption on the wrong clip shows.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from lite_media import clip_of, write_reel
from PIL import Image

from transforms.records import Clip

#: Sent where a question holds no picture.
NO_CLIP = -1
#: Of each clip.
FRAMES = 4


@dataclasses.dataclass(frozen=True)
class Question:
    """One request as it came in; `clip` is the shade of its pictures, `at` when it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    clip: int
    at: float

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The content of the last message, in parts."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, list) else [{"type": "text", "text": content}]

    @property
    def jpegs(self) -> list[bytes]:
        """Its pictures."""
        urls = [part["image_url"]["url"] for part in self.parts if part["type"] == "image_url"]
        assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
        return [base64.b64decode(url.partition(",")[2], validate=True) for url in urls]


Play = Callable[["_Visitor", Question], None]


def caption_of(clip: int, pictures: int) -> str:
    """What a good answer says."""
    return f"A wall in shade {clip} is seen in {pictures} pictures."


def good(visitor: _Visitor, question: Question) -> None:
    visitor.reply(chat(caption_of(question.clip, len(question.jpegs))))


def chat(text: str | None, finish_reason: str = "stop", tokens: int = 9, **message: Any) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
    return {"id": "chat-1", "object": "chat.completion", "choices": [choice], "usage": usage}


def says(body: Any, headers: dict[str, str] | None = None) -> Play:
    """Answers 200 with this body: bytes as they are, all else as JSON."""
    return lambda visitor, question: visitor.reply(body, 200, headers)


def status(number: int, headers: dict[str, str] | None = None, message: str = "not now", **error: Any) -> Play:
    """Answers with an error in the usual form."""
    return lambda visitor, question: visitor.reply({"error": {"message": message, **error}}, number, headers)


def after(seconds: float, play: Play = good) -> Play:
    """Answers late, or never as far as the client's patience goes; ends with the server."""

    def wait(visitor: _Visitor, question: Question) -> None:
        if not visitor.server.closing.wait(seconds):
            play(visitor, question)

    return wait


def hang() -> Play:
    return after(3600.0)


def drip(every_s: float) -> Play:
    """A byte now and then: no single read ever takes long."""

    def write(visitor: _Visitor, question: Question) -> None:
        visitor.start(200, {"Content-Length": "100000"})
        while not visitor.server.closing.wait(every_s):
            visitor.wfile.write(b" ")

    return write


def endless() -> Play:
    """A body without an end, as fast as it goes; counts what the client took."""

    def write(visitor: _Visitor, question: Question) -> None:
        visitor.start(200, {})
        part = b'{"choices": "' + b"x" * 65536
        while not visitor.server.closing.is_set():
            visitor.wfile.write(part)
            visitor.server.poured_bytes += len(part)

    return write


def hang_up() -> Play:
    """Breaks off in the middle of the body."""

    def write(visitor: _Visitor, question: Question) -> None:
        visitor.start(200, {"Content-Length": "1000"})
        visitor.wfile.write(b'{"choices": [')

    return write


class _Visitor(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EndpointServer

    def do_GET(self) -> None:
        self.reply({"object": "list", "data": [{"id": self.server.model, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = Question(self.path, dict(self.headers), body, NO_CLIP, time.monotonic())
        if question.jpegs:
            question = dataclasses.replace(question, clip=shade_of(question.jpegs[0]))
        with self.server.counting(), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.next_play(question)(self, question)

    def start(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def reply(self, body: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(sent)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        pass


class EndpointServer(ThreadingHTTPServer):
    """The server on a free port of this machine.

    Attributes:
      plays: by clip, what it does the first times it is asked about it; then it answers well. usual: for the others.
      questions: all that came, in order. most_at_once: questions under way together at the most.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, usual: Play = good, port: int = 0, model: str = "tiny"):
        super().__init__(("127.0.0.1", port), _Visitor)
        self.usual, self.model = usual, model
        self.plays: dict[int, list[Play]] = {}
        self.questions: list[Question] = []
        self.most_at_once, self._at_once, self.poured_bytes = 0, 0, 0
        self.closing = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def asked_about(self, clip: int) -> list[Question]:
        return [question for question in self.questions if question.clip == clip]

    def next_play(self, question: Question) -> Play:
        with self._lock:
            self.questions.append(question)
            plays = self.plays.get(question.clip)
            return plays.pop(0) if plays else self.usual

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def handle_error(self, *_: Any) -> None:
        pass  # A client that went away is what many tests are about.

    def __enter__(self) -> EndpointServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


def write_clips(folder: pathlib.Path, count: int, frames: int = FRAMES, **text: str) -> list[Clip]:
    """Clips with a reel each: all frames of clip n are painted in shade n."""
    clips = []
    for number in range(count):
        pictures = [painted(number, frame) for frame in range(frames)]
        reel = write_reel(folder / f"{number}.arrow", pictures)
        clips.append(clip_of(reel, frames, f"clip-{number}", **text))
    return clips


def painted(shade: int, frame: int) -> np.ndarray:
    """A picture whose red says which clip, and whose blue says which frame."""
    picture = np.empty((32, 48, 3), np.uint8)
    picture[:] = (8 * shade + 4, 128, 16 * frame + 8)
    return picture


def shade_of(jpeg: bytes) -> int:
    """The clip that a picture was painted for."""
    return int(np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))[..., 0].mean() // 8)


def frame_of(jpeg: bytes) -> int:
    """The frame that a picture was painted for."""
    return int(np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))[..., 2].mean() // 16)


VLLM = """import sys
from endpoint_server import serve_as_vllm
serve_as_vllm(sys.argv[1:])
"""


def write_vllm(folder: pathlib.Path) -> None:
    """Write a package `vllm` whose server is this one, to be put on the path."""
    inner = folder / "vllm" / "entrypoints" / "openai"
    inner.mkdir(parents=True)
    for package in (inner, inner.parent, inner.parent.parent):
        (package / "__init__.py").write_text("")
    (inner / "api_server.py").write_text(VLLM)


def serve_as_vllm(arguments: list[str]) -> None:
    """Serve until ended, as vLLM's own module does with such arguments, with a child as vLLM's engine is one.

    `--tell FILE` writes the arguments and the ids of both processes there; else they go into the model's directory.
    """
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    if given["--model"].endswith("broken"):
        sys.exit("no kernel image is available for execution on the device")
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    server = EndpointServer(port=int(given["--port"]), model=given["--served-model-name"])
    if "--tell" in given or os.path.isdir(given["--model"]):
        written = pathlib.Path(given.get("--tell", os.path.join(given["--model"], "told.log")))
        aside = written.with_suffix(".tmp")
        aside.write_text(json.dumps({"given": given, "pids": [os.getpid(), engine.pid]}))
        aside.replace(written)
    server.serve_forever()
