"""What a command logs: lines for people, or one JSON object a line with the ids of what it is about.

    with set_up(verbose=False, form="json"):
        with bound(run_id="20261122T101500-3f9a1c"):
            logging.getLogger(__name__).info("committed", extra={"video_id": "a-1b2c", "stage": "commit"})

Logging is the standard library's: whoever has an id passes it as `extra`. Titles and file names are other people's; a
line break in one must not begin a line of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

FORMS = ("text", "json")

#: What a line is about, as far as it is known; given as `extra`, and in this order.
FIELDS = (
    "run_id", "video_id", "clip_id", "teacher", "stage", "status", "error_class", "error", "attempt", "uri", "command",
)  # fmt: skip

#: Our packages, whose messages are of one line and which a JSON log tells from INFO up.
OURS = ("beam_pipeline", "transforms", "model_handlers")

#: Characters that break a line, or that a terminal obeys.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

#: Said on standard error by the commands themselves, and how grave it is; the first that fits.
_SAID = (
    ("reelscribe: stopping", logging.WARNING),
    ("reelscribe: interrupted", logging.WARNING),
    ("reelscribe: ", logging.ERROR),
    ("", logging.INFO),
)

#: What every line of this process is about: there is one run at a time, and its threads are not all ours.
_bound: dict[str, Any] = {}


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Let a command be asked for its log as JSON."""
    told = "how to log on standard error: for people, or one JSON object a line (text)"
    parser.add_argument("--log-format", choices=FORMS, default="text", help=told)


@contextlib.contextmanager
def set_up(*, verbose: bool, form: str = "text") -> Iterator[None]:
    """Log to standard error; as JSON, whatever else is written there becomes lines of the log, too.

    Args:
      verbose: log what the libraries say; without it a JSON log still has what our own packages say.
      form: 'text' or 'json'.
    """
    if not verbose:
        # Beam tells every failure of a job in hundreds of lines, several times; we tell its cause in one.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    root, level = logging.getLogger(), logging.INFO if verbose else logging.WARNING
    if form == "text":
        if not root.handlers:
            root.addHandler(_writer(sys.stderr, OneLine("%(levelname)s %(message)s")))
            root.setLevel(level)
        yield
        return
    loggers = [root, *map(logging.getLogger, OURS)]
    before = [(logger, logger.level) for logger in loggers]
    stream, writer = sys.stderr, _writer(sys.stderr, JsonLines())
    root.addHandler(writer)
    for logger in loggers:
        logger.setLevel(level if logger is root else logging.INFO)
    sys.stderr = lines = LoggedLines(logging.getLogger("beam_pipeline.stderr"))
    try:
        yield
    except Exception:
        logging.getLogger("beam_pipeline").exception("ended by an error that nobody expected")
        raise SystemExit(1) from None
    finally:
        lines.close()
        sys.stderr = stream
        root.removeHandler(writer)
        for logger, was in before:
            logger.setLevel(was)


@contextlib.contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Let every line that is logged meanwhile carry these fields, from whatever thread."""
    _bound.update(fields)
    try:
        yield
    finally:
        for name in fields:
            _bound.pop(name, None)


def tells_everything() -> bool:
    """Whether what libraries print is wanted on standard error as it comes: --verbose, for people."""
    return logging.getLogger().isEnabledFor(logging.INFO) and not isinstance(sys.stderr, LoggedLines)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record is about: what is bound, and what it was given as `extra`."""
    given: Mapping[str, Any] = {**_bound, **vars(record)}
    return {name: given[name] for name in FIELDS if given.get(name) is not None}


def one_line(text: str) -> str:
    """The text with its control characters spelt out.

    >>> one_line("two\\nlines")
    'two\\\\nlines'
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class OneLine(logging.Formatter):
    """The usual form for people; messages of our own, in which file names and titles stand, stay on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name.partition(".")[0] in OURS:
            record.message = one_line(record.message)
        return super().formatMessage(record)


class JsonLines(logging.Formatter):
    """One JSON object a line, ASCII alone: time (UTC), level, logger, message, and what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        told: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class _Begun(threading.local):
    """What a thread has begun to write, and whether its line is being logged right now."""

    line = ""
    busy = False


class LoggedLines(io.TextIOBase):
    """A stream whose lines go to a logger; what is begun waits for its end of line."""

    def __init__(self, logger: logging.Logger):
        self._logger, self._begun = logger, _Begun()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun.line = (self._begun.line + text).split("\n")
        for line in lines:
            self._log(line)
        return len(text)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """Log what waits; the stream itself stays open, as standard error does."""
        begun, self._begun.line = self._begun.line, ""
        self._log(begun)

    def _log(self, line: str) -> None:
        # A carriage return starts a line anew, as on a terminal.
        told = line.rpartition("\r")[2].rstrip()
        # A log that cannot be written complains here: it must not go on with its own complaint.
        if not told or self._begun.busy:
            return
        level = next(level for start, level in _SAID if told.startswith(start))
        self._begun.busy = True
        try:
            self._logger.log(level, "%s", told.removeprefix("reelscribe: "))
        finally:
            self._begun.busy = False


class OwnWords(io.TextIOBase):
    """A stream that passes on what the thread that made it writes, and drops what any other does."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._thread = threading.get_ident()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        if threading.get_ident() == self._thread:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _writer(stream: TextIO, formatter: logging.Formatter) -> logging.Handler:
    writer = logging.StreamHandler(stream)
    writer.setFormatter(formatter)
    return writer
