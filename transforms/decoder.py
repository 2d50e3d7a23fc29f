"""The decoding process: reads requests, decodes, answers. It may crash, hang or run out of memory on its own.

    python -m transforms.decoder LIFELINE MEMORY_LIMIT     # started by transforms.child, never by hand

A request is a JSON line on standard input, `{"task": "split" | "shots" | "probe" | "clips" | "sound" | "ping", ...}`;
answers are JSON lines on what was standard output: `{"frames": n, "time_s": t}` now and then, at last `{"done": ...}`
or `{"error": {...}}`.
"""

import signal

# Ctrl-C in a terminal reaches the whole process group; the parent decides what it means. Before the slow imports.
signal.signal(signal.SIGINT, signal.SIG_IGN)

import fcntl  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import select  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any, TextIO  # noqa: E402

_PROGRESS_S = 1.0


def end_with(lifeline: int) -> None:
    """Have the kernel end this process when the other end of the pipe `lifeline` is closed.

    SIGIO's default action ends a process even while it hangs in native code that holds Python's lock. (PR_SET_PDEATHSIG
    would not do: it fires when the *thread* that started the child ends.)
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):  # the parent was gone before the signal was armed
        os._exit(0)


def limit_memory(limit_bytes: int) -> None:
    """Let allocations beyond `limit_bytes` fail, so that they cost this process only."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _own_channels() -> tuple[TextIO, TextIO]:
    """Standard input and output for the protocol alone: what libraries print goes to standard error."""
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _answer(request: dict[str, Any], report: Callable[[int, float], None]) -> Any:
    if request["task"] == "ping":
        return os.getpid()
    if request["task"] == "clips":
        from transforms.clip_files import answer

        return answer(request, report)
    if request["task"] == "sound":
        from transforms.sound_track import write_sound

        return write_sound(request["path"], request["sound"], request["until_s"], report)
    from transforms.detection import SplittingConfig, detect_shots
    from transforms.splitting import probe, split_video

    if request["task"] == "probe":
        return probe(request["path"])
    path, config, sharing = request["path"], SplittingConfig(**request["config"]), request.get("sharing", 1)
    if request["task"] == "shots":
        return detect_shots(path, config, sharing, report)
    return split_video(path, request["reel"], config, etag=request["etag"], sharing=sharing, progress=report)


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    end_with(int(sys.argv[1]))
    requests, answers = _own_channels()
    limit_memory(int(sys.argv[2]))

    import cv2

    from transforms.allocation import keep_freed_memory

    # Several of these run side by side, one a worker thread.
    cv2.setNumThreads(1)
    keep_freed_memory()

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    for line in requests:
        say(frames=0, time_s=0.0)  # from here on, a death is this request's
        told = 0.0

        def report(frames: int, time_s: float) -> None:
            nonlocal told
            if time.monotonic() - told >= _PROGRESS_S:
                told = time.monotonic()
                say(frames=frames, time_s=time_s)

        try:
            say(done=_answer(json.loads(line), report))
        except Exception as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            trace = "".join(traceback.format_exception(error, limit=-6))[-4000:]
            say(error={"kinds": kinds, "message": str(error) or kinds[0], "trace": trace})


if __name__ == "__main__":
    main()
