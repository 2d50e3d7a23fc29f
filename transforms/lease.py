"""One writer at a time: a lease on the dataset's directory that outlives no dead process.

    with WriterLease("out", owner=run_id) as lease:
        ...
        lease.ensure_held()

The lease is the file `.lease` in the dataset: who, where, since when and until when; a thread renews it. One that has
expired, or whose process is gone from this machine, is taken over at once, so that the same command starts right after
`kill -9`. A writer that leaves in good order removes the file; one that dies, or leaves by an exception, leaves it
behind, and that is how `verify` knows that there may be leftovers.

A writer may leave its lease to a job elsewhere, which goes on when this process has ended (`leave_to_job`): it then
lasts for as long as Dataflow says that the job runs, and the job's last step takes it up again (`adopt`). Whoever takes
it up and does not get to the end, or dies, leaves it to the job as it was: the runner repeats a step, and a job that is
not updated goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from typing import Self

from transforms import objects
from transforms.dataflow_jobs import DataflowError, JobName, job_is_running
from transforms.files import Directory, join
from transforms.lease_places import LEASE, place_of

TTL_S = 60.0

#: How long a lease lasts that was left to a job: until the job has ended, which the service knows.
_OF_A_JOB_S = 10 * 365 * 86_400.0
#: The year 9000: what clocks and calendars can show.
_LATEST = 2.2e11


class LeaseHeld(RuntimeError):
    """Another writer holds the dataset."""


class LeaseLost(RuntimeError):
    """This writer was taken for dead, and another one writes now."""


@dataclasses.dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What the lease file says. Times are seconds since the epoch; `machine` tells pid spaces apart.

    `job` is the Dataflow job that it was left to (projects/P/locations/R/jobs/NAME), if it was; nobody has taken it up
    while `pid` is 0.
    """

    owner: str
    host: str
    machine: str
    pid: int
    pid_started: str | None
    since: float
    expires_at: float
    token: str
    job: str = ""

    def is_live(self, now: float) -> bool:
        """Whether its writer must be assumed to be writing still.

        Raises:
          DataflowError: it was left to a job, of which the service cannot be asked.
        """
        if now >= self.expires_at:
            return False
        if self.job:
            job = JobName.parse(self.job)
            return job_is_running(job.project, job.region, job.name)
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


def read_lease(dataset_dir: Directory) -> LeaseRecord | None:
    """The lease that lies there, live or dead; None when the last writer left in good order."""
    return _parse(place_of(dataset_dir).read()[0])


def _parse(content: bytes | None) -> LeaseRecord | None:
    if content is None:
        return None
    try:
        record = LeaseRecord(**json.loads(content))
        _check(record)
        return record
    except (ValueError, TypeError, RecursionError):
        # Whole records are renamed into place: this is no writer's, and it stops nobody.
        return LeaseRecord("unknown", "unknown", "", 0, None, 0.0, 0.0, "")


def _check(record: LeaseRecord) -> None:
    """Raise ValueError or TypeError unless this is what a writer writes."""
    texts = (record.owner, record.host, record.machine, record.token, record.job, record.pid_started or "")
    if not all(isinstance(one, str) for one in texts) or type(record.pid) is not int:
        raise TypeError("no writer's lease")
    if not 0 <= record.pid < 1 << 31 or not all(0 <= one < _LATEST for one in (record.since, record.expires_at)):
        raise ValueError("no writer's lease")
    if record.job:
        JobName.parse(record.job)


def check_free(dataset_dir: Directory, held: LeaseRecord | None) -> None:
    """Raise `LeaseHeld`, with a sentence for the user, if the writer of this lease may be writing still."""
    if held is None:
        return
    try:
        if held.is_live(time.time()):
            raise LeaseHeld(_sentence(dataset_dir, held))
    except DataflowError as error:
        raise LeaseHeld(
            f"{dataset_dir} is being written by {held.owner} ({_where(held)}); whether it still runs cannot be asked:"
            f" {error}. When it has ended, delete {join(dataset_dir, LEASE)}"
        ) from error


def _sentence(dataset_dir: Directory, held: LeaseRecord) -> str:
    since = datetime.datetime.fromtimestamp(held.since).astimezone().isoformat(" ", "seconds")
    left = max(1, round(held.expires_at - time.time()))
    until = "." if held.job else f"; should it have died on another host, try again in {left} seconds."
    return (
        f"{dataset_dir} is being written by {held.owner} ({_where(held)}) since {since}. "
        f"Wait until it has finished{until}"
    )


def require_lease(dataset_dir: Directory) -> None:
    """Raise `LeaseLost` unless this process holds the lease."""
    held = read_lease(dataset_dir)
    here = held is not None and (held.machine, held.pid) == (machine(), os.getpid())
    if held is None or not here or time.time() >= held.expires_at:
        raise LeaseLost(f"this needs the writer's lease on {dataset_dir}, which {_whose(held)}")


def _whose(held: LeaseRecord | None) -> str:
    return f"{held.owner} ({_where(held)}) took" if held else "nobody holds"


def _where(held: LeaseRecord) -> str:
    return f"Dataflow job {held.job}" if held.job else f"pid {held.pid} on {held.host}"


class WriterLease:
    """Holds the dataset for one writer while its `with` block runs.

    Args:
      dataset_dir: the dataset's directory, made if absent, or its folder in Cloud Storage.
      owner: who writes: the run's id.
      ttl_s: after how long without renewal others may take a writer for dead; it renews three times as often.
      adopt: take up what this owner has left to a job, or lost half-way; nobody else's.
      job: projects/P/locations/R/jobs/NAME, which this process launches. A lease that was left to a job of that very
        name is dead: the service has no two of one name, and the one that is there is this.

    Raises:
      LeaseHeld: on entry, with a sentence for the user.
    """

    def __init__(self, dataset_dir: Directory, owner: str, ttl_s: float = TTL_S, *, adopt: bool = False, job: str = ""):
        self._dir = dataset_dir
        self._adopt, self._job = adopt, job
        self._adopted_of = ""
        self._place = place_of(dataset_dir)
        self._owner = owner
        self._ttl_s = ttl_s
        self._token = uuid.uuid4().hex
        self._since = 0.0
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._left = False
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._since = time.time()
        while True:
            content, version = self._place.read()
            held = _parse(content)
            if self._adopt and (held is None or held.owner != self._owner):
                raise LeaseLost(f"{self._owner} has no lease on {self._dir}, which {_whose(held)}")
            is_namesake = held is not None and held.job and held.job == self._job
            if not self._adopt and not is_namesake:
                check_free(self._dir, held)
            self._adopted_of = held.job if self._adopt and held else ""
            if self._place.swap(version, self._content(time.time() + self._ttl_s)):
                break
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewer.start()
        return self

    def leave_to_job(self) -> None:
        """Leave the lease to the job, which goes on when this process has ended; to be called before it can end.

        Without a job it lasts for as long as this process.
        """
        self._stop_renewing()
        content, version = self._place.read()
        left = self._content(time.time() + _OF_A_JOB_S, left_to=self._job)
        if not self._is_ours(content) or not self._place.swap(version, left):
            raise LeaseLost(f"{self._owner} lost its lease on {self._dir}; run the same command again")
        self._left = True

    def _stop_renewing(self) -> None:
        self._stop.set()
        if self._renewer is not None:
            self._renewer.join()

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop_renewing()
        if self._left and kind is None:
            return
        try:
            content, version = self._place.read()
            if self._is_ours(content):
                # Work that was abandoned leaves its lease to say so; expired, so that the next writer need not wait.
                abandoned = self._content(0.0, left_to=self._adopted_of)
                self._place.swap(version, None if kind is None else abandoned)
        except (OSError, objects.StorageError):
            # It expires by itself, and what stopped the work says more than this.
            if kind is None:
                raise

    def ensure_held(self) -> None:
        """Raise `LeaseLost` if another writer took over, as it may after this one was suspended for long."""
        if self._lost.is_set() or not self._is_ours(self._place.read()[0]):
            raise LeaseLost(f"{self._owner} lost its lease on {self._dir}; run the same command again")

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            try:
                content, version = self._place.read()
                renewed = self._content(time.time() + self._ttl_s)
                if not self._is_ours(content) or not self._place.swap(version, renewed):
                    self._lost.set()
                    return
            except (OSError, objects.StorageError):
                # A full disk, a stale mount or no network for a moment; should it last, the lease expires by itself.
                continue

    def _is_ours(self, content: bytes | None) -> bool:
        held = _parse(content)
        return held is not None and held.token == self._token

    def _content(self, expires_at: float, left_to: str = "") -> bytes:
        """The lease until then; one that is left to a job, or was taken up from one, lasts as long as the job."""
        pid = 0 if left_to else os.getpid()
        job = left_to or self._adopted_of
        record = LeaseRecord(
            owner=self._owner,
            host=socket.gethostname(),
            machine=machine(),
            pid=pid,
            pid_started=pid_started(pid) if pid else None,
            since=self._since,
            expires_at=time.time() + _OF_A_JOB_S if job else expires_at,
            token=self._token,
            job=job,
        )
        return json.dumps(dataclasses.asdict(record)).encode()
