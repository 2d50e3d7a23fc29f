import dataclasses
import functools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from fake_dataflow import FakeDataflow

from transforms import lease as lease_module
from transforms.dataflow_jobs import job_is_running
from transforms.lease import (
    LeaseHeld,
    LeaseLost,
    WriterLease,
    is_alive,
    machine,
    pid_started,
    read_lease,
    require_lease,
)

ROOT = pathlib.Path(__file__).parents[1]
HOLD = "import sys, time\nfrom transforms.lease import WriterLease\nwith WriterLease(sys.argv[1], 'theirs'):\n    print('held', flush=True)\n    time.sleep(60)\n"  # noqa: E501


@pytest.fixture
def other_holder(tmp_path):
    """Another process that holds the lease of tmp_path."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    yield holder
    holder.kill()
    holder.communicate()


def alter(directory, **changes):
    path = directory / ".lease"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_live_writer_keeps_others_out_with_a_plain_sentence(tmp_path, other_holder):
    with pytest.raises(LeaseHeld) as refused, WriterLease(tmp_path, "mine"):
        pass
    assert f"is being written by theirs (pid {other_holder.pid} on " in str(refused.value)
    assert "Wait until it has finished" in str(refused.value)


def test_the_same_command_starts_at_once_after_kill_9(tmp_path, other_holder):
    os.kill(other_holder.pid, signal.SIGKILL)
    other_holder.wait()
    assert read_lease(tmp_path).owner == "theirs"
    began = time.monotonic()
    with WriterLease(tmp_path, "mine"):
        assert read_lease(tmp_path).owner == "mine"
    assert time.monotonic() - began < 2


def test_a_killed_writer_that_nobody_waited_for_is_dead(tmp_path, other_holder):
    os.kill(other_holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_alive(other_holder.pid, None) and time.monotonic() < deadline:
        time.sleep(0.01)  # A zombie keeps its pid until its parent asks for it.
    with WriterLease(tmp_path, "mine"):
        assert read_lease(tmp_path).owner == "mine"


def test_a_pid_that_was_given_out_again_is_not_the_writer(tmp_path):
    lease = WriterLease(tmp_path, "before", ttl_s=600)
    with lease:
        alter(tmp_path, pid_started="1")
        with WriterLease(tmp_path, "mine"):
            assert read_lease(tmp_path).owner == "mine"
            with pytest.raises(LeaseLost, match="before lost its lease"):
                lease.ensure_held()
    assert is_alive(os.getpid(), pid_started(os.getpid()))
    assert not is_alive(os.getpid(), "1")


def test_a_writer_elsewhere_is_believed_until_its_lease_expires(tmp_path):
    with WriterLease(tmp_path, "far away", ttl_s=600):
        alter(tmp_path, machine="another host", host="another", pid=1)
        with pytest.raises(LeaseHeld, match=r"far away .pid 1 on another."), WriterLease(tmp_path, "mine"):
            pass
        alter(tmp_path, expires_at=time.time() - 1)
        with WriterLease(tmp_path, "mine"):
            assert read_lease(tmp_path).owner == "mine"


def test_the_lease_is_renewed_while_its_writer_works(tmp_path):
    with WriterLease(tmp_path, "mine", ttl_s=0.6) as lease:
        first = read_lease(tmp_path).expires_at
        time.sleep(1.5)
        lease.ensure_held()
        assert read_lease(tmp_path).expires_at > first + 0.5


def test_a_writer_that_was_suspended_learns_that_it_lost(tmp_path):
    with WriterLease(tmp_path, "slow", ttl_s=600) as slow:
        alter(tmp_path, expires_at=0.0)
        with WriterLease(tmp_path, "fast"), pytest.raises(LeaseLost):
            slow.ensure_held()
    assert read_lease(tmp_path) is None


def test_leaving_in_good_order_leaves_nothing_and_an_error_leaves_a_mark(tmp_path):
    with WriterLease(tmp_path, "good"):
        pass
    assert read_lease(tmp_path) is None
    with pytest.raises(ZeroDivisionError), WriterLease(tmp_path, "bad"):
        raise ZeroDivisionError
    left = read_lease(tmp_path)
    assert (left.owner, left.is_live(time.time())) == ("bad", False)
    with WriterLease(tmp_path, "next"):
        pass
    assert read_lease(tmp_path) is None


def test_only_one_of_many_takes_over_a_dead_lease(tmp_path):
    with pytest.raises(ZeroDivisionError), WriterLease(tmp_path, "dead"):
        raise ZeroDivisionError
    won, done = [], threading.Event()

    def contend(name):
        try:
            with WriterLease(tmp_path, name):
                won.append(name)
                done.wait(10)
        except LeaseHeld:
            lost.append(name)

    lost: list[str] = []
    threads = [threading.Thread(target=contend, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(won) + len(lost) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)


def test_a_lease_that_is_no_lease_stops_nobody(tmp_path):
    (tmp_path / ".lease").write_text("{")
    with WriterLease(tmp_path, "mine"):
        assert read_lease(tmp_path).machine == machine()


def test_require_lease_wants_this_process_to_hold_it(tmp_path, other_holder):
    with pytest.raises(LeaseLost, match=r"theirs .* took"):
        require_lease(tmp_path)
    with pytest.raises(LeaseLost, match="nobody holds"):
        require_lease(tmp_path / "other")
    with WriterLease(tmp_path / "other", "mine"):
        require_lease(tmp_path / "other")


def test_in_cloud_storage_one_writer_holds_the_dataset_and_leaves_nothing_behind(gcs):
    with WriterLease("gs://bucket/out", "mine") as lease:
        held = read_lease("gs://bucket/out")
        with pytest.raises(LeaseHeld, match="is being written by mine"), WriterLease("gs://bucket/out", "theirs"):
            pass
        lease.ensure_held()
        require_lease("gs://bucket/out")
    assert held is not None and held.owner == "mine"
    assert read_lease("gs://bucket/out") is None
    with pytest.raises(LeaseLost, match="nobody holds"):
        require_lease("gs://bucket/out")


def test_in_cloud_storage_of_two_who_take_an_expired_lease_one_is_refused(gcs):
    with pytest.raises(ZeroDivisionError), WriterLease("gs://bucket/out", "died"):
        raise ZeroDivisionError
    gate, held, refused, done = threading.Barrier(2), [], [], threading.Event()

    def take(owner):
        lease = WriterLease("gs://bucket/out", owner)
        gate.wait(30)
        try:
            with lease:
                held.append(owner)
                done.wait(60)
        except LeaseHeld:
            refused.append(owner)

    contenders = [threading.Thread(target=take, args=(owner,)) for owner in ("a", "b")]
    for one in contenders:
        one.start()
    while all(one.is_alive() for one in contenders):
        time.sleep(0.01)
    assert (len(held), len(refused)) == (1, 1)
    assert read_lease("gs://bucket/out").owner == held[0]
    done.set()
    for one in contenders:
        one.join()
    assert read_lease("gs://bucket/out") is None


def test_in_cloud_storage_a_lease_that_was_taken_over_is_lost_and_left_to_its_holder(gcs):
    with WriterLease("gs://bucket/out", "mine") as lease:
        taken = dataclasses.replace(read_lease("gs://bucket/out"), owner="theirs", token="t", pid=1)
        gcs.put("out/.lease", json.dumps(dataclasses.asdict(taken)))
        with pytest.raises(LeaseLost, match=r"mine lost its lease on gs://bucket/out"):
            lease.ensure_held()
        with pytest.raises(LeaseLost, match=r"theirs .* took"):
            require_lease("gs://bucket/out")
    assert read_lease("gs://bucket/out").owner == "theirs"


JOB = "projects/proj-test/locations/us-central1/jobs/nightly"


@pytest.fixture
def dataflow(monkeypatch):
    """Dataflow, as leases ask it."""
    with FakeDataflow() as service:
        asked = functools.partial(job_is_running, endpoint=service.url)
        monkeypatch.setattr(lease_module, "job_is_running", asked)
        yield service


def left_to_a_job(directory, owner="launched"):
    with WriterLease(directory, owner, job=JOB) as lease:
        lease.leave_to_job()


def test_a_lease_left_to_a_job_lasts_until_the_service_says_that_the_job_has_ended(tmp_path, dataflow):
    job_id = dataflow.add("nightly", state="JOB_STATE_RUNNING")
    left_to_a_job(tmp_path)
    with pytest.raises(LeaseHeld) as refused, WriterLease(tmp_path, "mine"):
        pass
    assert f"is being written by launched (Dataflow job {JOB}) since" in str(refused.value)
    assert str(refused.value).endswith("Wait until it has finished.")
    with pytest.raises(LeaseLost, match=f"which launched .Dataflow job {JOB}. took"):
        require_lease(tmp_path)
    dataflow.jobs[job_id]["currentState"] = "JOB_STATE_CANCELLED"
    with WriterLease(tmp_path, "mine"):
        assert read_lease(tmp_path).owner == "mine"


def test_where_the_service_cannot_be_asked_the_lease_holds_and_one_line_says_what_to_delete(tmp_path, dataflow):
    left_to_a_job(tmp_path)
    dataflow.refuse = (403, "PERMISSION_DENIED", "no rights")
    with pytest.raises(LeaseHeld) as refused, WriterLease(tmp_path, "mine"):
        pass
    told = str(refused.value)
    assert "whether it still runs cannot be asked: " in told
    assert told.endswith(f"When it has ended, delete {tmp_path / '.lease'}")
    assert "\n" not in told


def test_the_last_step_of_a_job_takes_its_lease_up_and_nobody_else_can(tmp_path, dataflow):
    dataflow.add("nightly", state="JOB_STATE_RUNNING")
    left_to_a_job(tmp_path)
    with pytest.raises(LeaseLost, match="other has no lease on"), WriterLease(tmp_path, "other", adopt=True):
        pass
    with pytest.raises(ZeroDivisionError), WriterLease(tmp_path, "launched", adopt=True):
        raise ZeroDivisionError
    # The runner tries the step again; until then the dataset is the job's.
    with pytest.raises(LeaseHeld, match=f"by launched .Dataflow job {JOB}."), WriterLease(tmp_path, "mine"):
        pass
    with pytest.raises(LeaseLost, match="which launched"):
        require_lease(tmp_path)
    with WriterLease(tmp_path, "launched", adopt=True) as lease:
        require_lease(tmp_path)
        lease.ensure_held()
        with pytest.raises(LeaseHeld), WriterLease(tmp_path, "mine"):
            pass
    assert read_lease(tmp_path) is None
    with pytest.raises(LeaseLost, match="which nobody holds"), WriterLease(tmp_path, "launched", adopt=True):
        pass


def test_a_last_step_that_dies_leaves_the_dataset_to_its_job_and_the_job_s_end_frees_it(tmp_path, dataflow):
    job_id = dataflow.add("nightly", state="JOB_STATE_RUNNING")
    left_to_a_job(tmp_path)
    died = WriterLease(tmp_path, "launched", ttl_s=0.01, adopt=True)
    died.__enter__()
    died._stop_renewing()
    time.sleep(0.05)
    with pytest.raises(LeaseHeld), WriterLease(tmp_path, "mine"):
        pass
    dataflow.jobs[job_id]["currentState"] = "JOB_STATE_FAILED"
    with WriterLease(tmp_path, "mine"):
        assert read_lease(tmp_path).owner == "mine"


def test_a_launch_that_fails_leaves_no_lease_to_a_job_that_never_was(tmp_path):
    with pytest.raises(ZeroDivisionError), WriterLease(tmp_path, "launched", job=JOB) as lease:
        lease.leave_to_job()
        raise ZeroDivisionError
    with WriterLease(tmp_path, "mine"):
        assert read_lease(tmp_path).owner == "mine"


def test_a_launcher_finds_the_lease_of_a_dead_job_of_its_own_name_though_the_service_says_that_one_runs(
    tmp_path, dataflow
):
    left_to_a_job(tmp_path, "last night's")
    dataflow.add("nightly", state="JOB_STATE_QUEUED")  # The job that is being launched.
    left_to_a_job(tmp_path, "tonight's")
    assert (read_lease(tmp_path).owner, read_lease(tmp_path).job) == ("tonight's", JOB)


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": "soon"},
        {"expires_at": math.nan},
        {"expires_at": math.inf},
        {"since": 1e300},
        {"pid": 1 << 70},
        {"pid": "1"},
        {"owner": ["me"]},
        {"job": 5},
        {"job": "nightly"},
        {"job": "projects/p/locations/r/jobs/nightly\n"},
    ],
    ids=str,
)
def test_what_no_writer_writes_stops_nobody(tmp_path, changes):
    with pytest.raises(ZeroDivisionError), WriterLease(tmp_path, "theirs"):
        raise ZeroDivisionError
    alter(tmp_path, **{"expires_at": time.time() + 60, **changes})
    with WriterLease(tmp_path, "mine"):
        assert read_lease(tmp_path).owner == "mine"


@pytest.mark.parametrize("content", [b"[" * 100_000, b" " * 100_000 + b"{}", b"\xff", b"null"], ids=len)
def test_neither_does_what_is_no_lease_at_all(tmp_path, gcs, content):
    (tmp_path / ".lease").write_bytes(content)
    gcs.put("sets/talks/.lease", content)
    for folder in (tmp_path, "gs://bucket/sets/talks"):
        with WriterLease(folder, "mine"):
            assert read_lease(folder).owner == "mine"
