"""Google's own Pub/Sub emulator, where the Cloud SDK has it: a Java server on this machine."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator


def emulator_path() -> str | None:
    """The emulator's starter, or None where it is not installed."""
    gcloud = shutil.which("gcloud")
    roots = [pathlib.Path(gcloud).resolve().parents[1]] if gcloud else []
    roots += [pathlib.Path("/usr/lib/google-cloud-sdk"), pathlib.Path("/usr/share/google-cloud-sdk")]
    found = [root / "platform/pubsub-emulator/bin/cloud-pubsub-emulator" for root in roots]
    return next((str(path) for path in found if path.is_file()), None) if shutil.which("java") else None


@contextlib.contextmanager
def running_emulator(folder: pathlib.Path) -> Iterator[str]:
    """Start the emulator; give the host and port of its server once it answers."""
    path = emulator_path()
    assert path is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "pubsub.log", "wb") as log:
        server = subprocess.Popen(
            [path, "--host=127.0.0.1", f"--port={port}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            # Of its own, so that the Java process below the shell script ends with it.
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 60
        while "Server started, listening on" not in (folder / "pubsub.log").read_text():
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the emulator did not start: {(folder / 'pubsub.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)
