"""Decoding in another process, so that a crash, a hang or runaway memory costs one video.

    summary = decode("split", {"path": path, "reel": reel, "etag": etag, "config": {...}}, Limits(stall_s=60))

Processes are started on demand, one for each thread that decodes at the same time, and used again. They are spawned,
never forked: the parent may hold threads and CUDA. They end with the parent, however it ends.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from transforms.media_errors import MediaError

_STDERR_LINES = 20
_MAX_LINE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one video may cost.

    Attributes:
      deadline_s: all in all; a three-hour film on one slow core stays within the default.
      stall_s: without a single frame.
      memory_bytes: private memory of the decoding process; the libraries alone take 300 MiB.
    """

    deadline_s: float = 6 * 3600.0
    stall_s: float = 120.0
    memory_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        for field, least in (("deadline_s", 0), ("stall_s", 0), ("memory_bytes", 512 << 20)):
            if not getattr(self, field) > least:
                raise ValueError(f"{field} must be more than {least}, not {getattr(self, field)!r}")


class DecoderFailed(MediaError):
    """The decoding process failed on this video; `detail` holds what it last said."""

    def __init__(self, message: str, detail: str = ""):
        super().__init__(message)
        self.detail = detail


class _NeverBegan(DecoderFailed):
    """It was dead before it took the request: the video has no part in it."""


class DecoderCrashed(DecoderFailed):
    """It ended by a signal or an exit of a native library."""


class DecoderStalled(DecoderFailed):
    """It ran into a deadline and was killed."""


class DecoderOutOfMemory(DecoderFailed):
    """It reached its memory limit."""


class DecoderChild:
    """One decoding process. Not for two threads at once."""

    def __init__(self, memory_bytes: int):
        self.memory_bytes = memory_bytes
        lifeline, self._lifeline = os.pipe()
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        try:
            # -P keeps the working directory out of the path: a file json.py there would be imported.
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "transforms.decoder", str(lifeline), str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(lifeline,),
                env={**os.environ, "PYTHONPATH": path, "OPENCV_FFMPEG_LOGLEVEL": "-8", "SVT_LOG": "1"},
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)
        assert self._popen.stdout is not None and self._popen.stderr is not None
        self._answers, self._stderr = self._popen.stdout.fileno(), self._popen.stderr.fileno()
        self._pending = b""
        self._began = False
        self._said: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
        self._selector = selectors.DefaultSelector()
        for stream in (self._answers, self._stderr):
            os.set_blocking(stream, False)
            self._selector.register(stream, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def ask(self, request: dict[str, Any], limits: Limits) -> Any:
        """Send one request and wait for its answer.

          Raises:
            MediaError: the file yields no video; the child can be asked again.
            DecoderFailed: the child crashed, stalled or ran out of memory; it is gone.
        RuntimeError: the environment is at fault.
        """
        assert self._popen.stdin is not None
        began = heard = time.monotonic()
        self._began = False
        try:
            self._popen.stdin.write(json.dumps(request).encode() + b"\n")
            self._popen.stdin.flush()
        except OSError:
            raise self._gone() from None
        while True:
            now = time.monotonic()
            if now > began + limits.deadline_s:
                raise self._killed(f"decoding took longer than {limits.deadline_s:g} s")
            if now > heard + limits.stall_s:
                raise self._killed(f"decoding stood still for {limits.stall_s:g} s")
            for line in self._lines(min(began + limits.deadline_s, heard + limits.stall_s) - now):
                heard = time.monotonic()
                self._began = True
                message = json.loads(line)
                if "done" in message:
                    return message["done"]
                if "error" in message:
                    raise self._error_of(message["error"])

    def _lines(self, timeout_s: float) -> list[bytes]:
        """Complete lines that arrive within a while; none if only noise did."""
        lines: list[bytes] = []
        for key, _ in self._selector.select(max(0.0, timeout_s) + 0.01):
            chunk = os.read(key.fd, 1 << 16)
            if key.fd == self._stderr:
                self._said.extend(chunk.decode("utf-8", "replace").splitlines())
                if not chunk:
                    self._selector.unregister(key.fd)
                continue
            if not chunk or len(self._pending) > _MAX_LINE_BYTES:
                raise self._gone()
            *complete, self._pending = (self._pending + chunk).split(b"\n")
            lines += complete
        return lines

    def _error_of(self, error: dict[str, Any]) -> Exception:
        kinds, message = error["kinds"], error["message"]
        if "MemoryError" in kinds or "Insufficient memory" in message or "Cannot allocate memory" in message:
            # What is left of its memory may be in pieces: the next video gets a fresh one.
            self.close()
            limit = self.memory_bytes / (1 << 30)
            return DecoderOutOfMemory(f"decoding needs more than the {limit:.3g} GiB it may use", error["trace"])
        for kind in _all_kinds(MediaError):
            if kind.__name__ == kinds[0]:
                return kind(message)
        if ("OSError" in kinds and "FFmpegError" not in kinds) or "ImportError" in kinds:
            # A full disk or a broken installation is not the video's fault: the runner decides.
            return RuntimeError(f"the decoder cannot work here: {kinds[0]}: {message}\n{error['trace']}")
        return DecoderFailed(f"the splitter failed: {kinds[0]}: {message}", error["trace"])

    def _gone(self) -> DecoderFailed:
        """The error for a child that ended by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(5)
        self.close()
        code = self._popen.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how = f"was ended by {name}"
        else:
            how = f"ended with status {code}"
        if not self._began:
            return _NeverBegan(f"the decoder {how} before it took a video", "\n".join(self._said))
        said = "\n".join(self._said)
        if "MemoryError" in said or "Cannot allocate memory" in said:
            return DecoderOutOfMemory(f"decoding ran out of memory: the decoder {how}", said)
        return DecoderCrashed(f"the decoder {how} while it read this video", said)

    def _killed(self, why: str) -> DecoderStalled:
        self.close()
        return DecoderStalled(f"{why}; the decoder was killed", "\n".join(self._said))

    @property
    def alive(self) -> bool:
        return self._popen.returncode is None and self._popen.poll() is None

    def close(self) -> None:
        """End the process now, whatever it does."""
        if self._lifeline < 0:
            return
        self._popen.kill()
        self._drain()
        self._popen.wait()
        self._selector.close()
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()
        os.close(self._lifeline)
        self._lifeline = -1

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            self._said.extend(os.read(self._stderr, 1 << 16).decode("utf-8", "replace").splitlines())


def _all_kinds(kind: type[MediaError]) -> list[type[MediaError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _all_kinds(child))]


_idle: list[DecoderChild] = []
_busy = 0
_owner = os.getpid()
_lock = threading.Lock()


@contextlib.contextmanager
def decoder_child(memory_bytes: int) -> Any:
    """Borrow a decoding process of this memory limit: an idle one, or a new one."""
    global _owner, _busy
    with _lock:
        if _owner != os.getpid():
            # This is a fork of the process that started them: it must not talk into their pipes.
            _idle.clear()
            _owner, _busy = os.getpid(), 0
        found = next((child for child in _idle if child.memory_bytes == memory_bytes), None)
        if found is not None:
            _idle.remove(found)
        _busy += 1
    try:
        if found is not None and not found.alive:
            found.close()
            found = None
        child = found or DecoderChild(memory_bytes)
        try:
            yield child
        except MediaError:
            _give_back(child)
            raise
        except BaseException:
            child.close()  # it may be in the middle of an answer
            raise
        _give_back(child)
    finally:
        with _lock:
            _busy -= 1


def _give_back(child: DecoderChild) -> None:
    if child.alive:
        with _lock:
            _idle.append(child)


def decode(task: str, request: dict[str, Any], limits: Limits) -> Any:
    """Have a decoding process do `task` (`split`, `shots`, `clips` or `sound`), and return its answer.

    Raises:
      MediaError: the file yields no video. DecoderFailed (one of them): the process failed on it.
    """
    for last_try in (False, True):
        with decoder_child(limits.memory_bytes) as child:
            try:
                return child.ask({"task": task, "sharing": _busy, **request}, limits)
            except _NeverBegan:
                # An idle process that something else ended; a fresh one is to be had.
                if last_try:
                    raise
            finally:
                if "reel" in request:
                    _clear_unfinished(request["reel"], child.pid)
                for clip in request.get("clips", ()):
                    _clear_unfinished(os.path.join(request["folder"], clip["clip_id"]), child.pid)
    raise AssertionError("unreachable")


def _clear_unfinished(reel: str, pid: int) -> None:
    """Take away what a killed process had begun to write."""
    folder, name = os.path.split(reel)
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(folder, f".{name}.{pid}.tmp"))


@atexit.register
def close_idle() -> None:
    """End the processes that nobody uses."""
    if _owner != os.getpid():
        return
    with _lock:
        children, _idle[:] = list(_idle), []
    for child in children:
        child.close()
