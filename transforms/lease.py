"""One writer at a time: a lease on the dataset's directory that outlives no dead process.

    with WriterLease("out", owner=run_id) as lease:
        ...
        lease.ensure_held()

The lease is the file `.lease` in the directory: who, where, since when and until when; a thread renews it. One that has
expired, or whose process is gone from this machine, is taken over at once, so that the same command starts right after
`kill -9`. A writer that leaves in good order removes the file; one that dies, or leaves by an exception, leaves it
behind, and that is how `verify` knows that there may be leftovers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Self

TTL_S = 60.0

_LEASE = ".lease"
_LOCK = ".lease.lock"


class LeaseHeld(RuntimeError):
    """Another writer holds the dataset."""


class LeaseLost(RuntimeError):
    """This writer was taken for dead, and another one writes now."""


@dataclasses.dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the lease file says. Times are seconds since the epoch; `machine` tells pid spaces apart."""

    owner: str
    host: str
    machine: str
    pid: int
    pid_started: str | None
    since: float
    expires_at: float
    token: str

    def is_live(self, now: float) -> bool:
        """Whether its writer must be assumed to be writing still."""
        if now >= self.expires_at:
            return False
        if self.machine != machine():
            return True
        return is_alive(self.pid, self.pid_started)


def machine() -> str:
    """Name this pid space: a pid means nothing on another host, after another boot, or in another container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def pid_started(pid: int) -> str | None:
    """When a process started, in clock ticks after boot; None where the system does not tell."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name stands in brackets and may hold anything; the start is the 20th field after it.
    return stat.rpartition(")")[2].split()[19]


def is_alive(pid: int, started: str | None) -> bool:
    """Whether this very process still runs: a pid that was given out again is not it, and a zombie is dead."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with contextlib.suppress(OSError):
        if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
    return started is None or pid_started(pid) in (None, started)


def read_lease(dataset_dir: str | os.PathLike[str]) -> LeaseRecord | None:
    """The lease that lies there, live or dead; None when the last writer left in good order."""
    try:
        return LeaseRecord(**json.loads((pathlib.Path(dataset_dir) / _LEASE).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Whole records are renamed into place: this is no writer's, and it stops nobody.
        return LeaseRecord("unknown", "unknown", "", 0, None, 0.0, 0.0, "")


def require_lease(dataset_dir: str | os.PathLike[str]) -> None:
    """Raise `LeaseLost` unless this process holds the lease."""
    held = read_lease(dataset_dir)
    if held is None or (held.machine, held.pid) != (machine(), os.getpid()) or time.time() >= held.expires_at:
        raise LeaseLost(f"this needs the writer's lease on {dataset_dir}, which {_whose(held)}")


def _whose(held: LeaseRecord | None) -> str:
    return f"{held.owner} (pid {held.pid} on {held.host}) took" if held else "nobody holds"


class WriterLease:
    """Holds the dataset for one writer while its `with` block runs.

    Args:
      dataset_dir: the dataset's directory; made if absent. A path of the file system, no object store.
      owner: who writes: the run's id.
      ttl_s: after how long without renewal others may take a writer for dead; it renews three times as often.

    Raises:
      LeaseHeld: on entry, with a sentence for the user.
    """

    def __init__(self, dataset_dir: str | os.PathLike[str], owner: str, ttl_s: float = TTL_S):
        if "://" in os.fspath(dataset_dir):
            raise ValueError(f"the writer's lease needs a directory of the file system, not {dataset_dir}")
        self._dir = pathlib.Path(dataset_dir)
        self._owner = owner
        self._ttl_s = ttl_s
        self._token = uuid.uuid4().hex
        self._since = 0.0
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._dir.mkdir(parents=True, exist_ok=True)
        self._since = time.time()
        with self._alone():
            held = read_lease(self._dir)
            if held is not None and held.is_live(time.time()):
                raise LeaseHeld(self._sentence(held))
            self._write(time.time() + self._ttl_s)
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewer.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        if self._renewer is not None:
            self._renewer.join()
        with self._alone():
            if self._is_ours():
                if kind is None:
                    (self._dir / _LEASE).unlink()
                else:
                    # Left to say that work was abandoned; expired, so that the next writer need not wait.
                    self._write(0.0)

    def ensure_held(self) -> None:
        """Raise `LeaseLost` if another writer took over, as it may after this one was suspended for long."""
        if self._lost.is_set() or not self._is_ours():
            raise LeaseLost(f"{self._owner} lost its lease on {self._dir}; run the same command again")

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            try:
                with self._alone():
                    if not self._is_ours():
                        self._lost.set()
                        return
                    self._write(time.time() + self._ttl_s)
            except OSError:
                # A full disk or a stale mount for a moment; should it last, the lease expires by itself.
                continue

    def _is_ours(self) -> bool:
        held = read_lease(self._dir)
        return held is not None and held.token == self._token

    def _write(self, expires_at: float) -> None:
        pid = os.getpid()
        record = LeaseRecord(
            owner=self._owner,
            host=socket.gethostname(),
            machine=machine(),
            pid=pid,
            pid_started=pid_started(pid),
            since=self._since,
            expires_at=expires_at,
            token=self._token,
        )
        aside = self._dir / f"{_LEASE}.{self._token}.tmp"
        aside.write_text(json.dumps(dataclasses.asdict(record)))
        os.replace(aside, self._dir / _LEASE)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Look and write without another contender in between; the kernel frees the lock of a dead process."""
        with open(self._dir / _LOCK, "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sentence(self, held: LeaseRecord) -> str:
        since = datetime.datetime.fromtimestamp(held.since).astimezone().isoformat(" ", "seconds")
        left = max(1, round(held.expires_at - time.time()))
        return (
            f"{self._dir} is being written by {held.owner} (pid {held.pid} on {held.host}) since {since}. "
            f"Wait until it has finished; should it have died on another host, try again in {left} seconds."
        )
