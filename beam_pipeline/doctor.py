"""Check this machine before a job, and name the command that mends each fault: reelscribe doctor --output DIR

    checks = diagnose(profile="lite", output="dataset")
    status = print_checks(checks)                       # 1 when any check failed

Nothing here raises for what it finds, hangs on a network, or leaves a file behind.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import Literal

from beam_pipeline.checks import Check, State, free_gb, nearest_folder
from beam_pipeline.doctor_models import check_models
from beam_pipeline.runs import root_cause
from transforms.files import check_folder, join
from transforms.objects import ABSENT, Refused, StorageError, delete, write

#: What each extra of setup.py brings, by import name. gcp is asked for only where gs:// is used.
MODULES = {
    "": ("numpy", "pyarrow", "deltalake", "PIL", "yaml", "jinja2", "pysubs2"),
    "local": (
        "apache_beam",
        "av",
        "scenedetect",
        "cv2",
        "torch",
        "torchvision",
        "transformers",
        "safetensors",
        "lpips",
        "scipy",
    ),
    "gcp": ("google.cloud.storage", "apache_beam"),
}

#: Names a decoder may have in FFmpeg builds, by what people call the codec. Without the first, most uploads fail.
DECODERS = {
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP8": ("vp8", "libvpx"),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "libaom-av1", "av1"),
    "MPEG-4": ("mpeg4",),
    "MPEG-2": ("mpeg2video",),
    "ProRes": ("prores",),
    "MJPEG": ("mjpeg",),
}
ENCODERS = ("libx264", "libopenh264", "mpeg4")

SCARCE_GB, LITTLE_GB = 1.0, 10.0
LITTLE_MEMORY_GB = 4.0
NETWORK_DEADLINE_S = 20
REINSTALL_AV = "pip install --force-reinstall --only-binary=:all: av"


def diagnose(
    profile: str | None = None,
    config_file: str | None = None,
    output: str | None = None,
    *,
    commercial_only: bool = False,
) -> list[Check]:
    """Look at the machine, the packages, the models of the configuration, and the place for the dataset."""
    checks = [check_python(), *check_packages()]
    missing = {check.name for check in checks if check.state == "fail"}
    checks += [check_memory(), check_cores()]
    if not missing:
        checks += [*check_codecs(), *check_models(profile, config_file, commercial_only), check_gpu()]
    if output is not None and output.startswith("gs://"):
        credentials = check_credentials()
        checks += [credentials, *([check_bucket(output)] if credentials.state == "ok" else [])]
    else:
        checks += check_output(output or ".")
    return checks


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    """Python 3.11 or newer."""
    text = ".".join(map(str, version))
    if version >= (3, 11):
        return Check("python", "ok", text)
    return Check("python", "fail", f"{text}; 3.11 or newer is needed", "python3.11 -m venv .venv && make install")


def check_packages(modules: dict[str, tuple[str, ...]] = MODULES) -> Iterator[Check]:
    """One check an extra: are its packages installed? gcp's absence is no fault until gs:// is used."""
    for extra, names in modules.items():
        missing = [name for name in names if not _installed(name)]
        wanted = f"reelscribe[{extra}]" if extra else "reelscribe"
        if not missing:
            yield Check(f"packages {extra or 'base'}", "ok", f"all of {wanted} is installed")
        elif extra == "gcp":
            yield Check("packages gcp", "ok", "not installed; only gs:// and Dataflow need it")
        else:
            found = f"missing: {', '.join(missing)}"
            yield Check(f"packages {extra or 'base'}", "fail", found, f"pip install '{wanted}'")


def check_memory(limit_file: str = "/sys/fs/cgroup/memory.max") -> Check:
    """Memory that this process may use: the machine's, or its container's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(pathlib.Path(limit_file).read_text()))
    gigabytes = total / 2**30
    if gigabytes < LITTLE_MEMORY_GB:
        found = f"{gigabytes:.1f} GB; the models and a decoder want {LITTLE_MEMORY_GB:.0f} GB"
        return Check("memory", "warn", found, "run on a machine with more memory, or with --direct_num_workers=1")
    return Check("memory", "ok", f"{gigabytes:.1f} GB")


def check_cores() -> Check:
    """Cores that this process may run on."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", "ok", str(count))


def check_codecs(
    decoders: dict[str, tuple[str, ...]] = DECODERS, encoders: Iterable[str] = ENCODERS
) -> Iterator[Check]:
    """What the PyAV build can decode and encode. No ffmpeg program is needed."""
    import av

    able = [codec for codec, names in decoders.items() if any(_has_codec(name, "r") for name in names)]
    unable = [codec for codec in decoders if codec not in able]
    if unable:
        state: State = "fail" if next(iter(decoders)) in unable else "warn"
        found = f"PyAV {av.__version__} cannot decode {', '.join(unable)}"
        yield Check("decoding", state, found, REINSTALL_AV)
    else:
        yield Check("decoding", "ok", f"PyAV {av.__version__}: {', '.join(able)}")
    encoder = next((name for name in encoders if _has_codec(name, "w")), None)
    if encoder:
        yield Check("encoding", "ok", encoder)
    else:
        yield Check("encoding", "warn", "no encoder: reelscribe's demo film can't be made", REINSTALL_AV)


def check_gpu(smi: str = "nvidia-smi") -> Check:
    """Is there a GPU, and does torch see it?"""
    import torch

    if torch.cuda.is_available():
        return Check("gpu", "ok", f"{torch.cuda.get_device_name(0)}, torch {torch.__version__} sees it")
    command = [smi, "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, timeout=NETWORK_DEADLINE_S).stdout.split("\n")
    except (OSError, subprocess.TimeoutExpired):
        names = []
    if not any(names):
        return Check("gpu", "ok", "none; the job runs on the CPU")
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built for the CPU alone"
    fix = "update the NVIDIA driver" if torch.version.cuda else "pip install --force-reinstall -c constraints.txt torch"
    return Check("gpu", "warn", f"{names[0]} is there, but torch {torch.__version__} {built} and can't use it", fix)


def check_output(output: str) -> list[Check]:
    """Can the dataset be written where it shall go, and is there room?"""
    if "://" in output:
        found = f"{output} is neither a directory nor gs://"
        return [Check("output", "fail", found, "reelscribe curate --output DIR ...   # a local directory")]
    folder = nearest_folder(output)
    try:
        with tempfile.TemporaryDirectory(prefix=".reelscribe-doctor-", dir=folder) as tried:
            # What a commit does: write aside, flush, rename.
            aside = pathlib.Path(tried, "aside")
            with open(aside, "wb") as opened:
                opened.write(b"x")
                os.fsync(opened.fileno())
            os.replace(aside, pathlib.Path(tried, "named"))
    except OSError as error:
        fix = f"choose another --output, or: sudo chown $USER '{folder}'"
        return [Check("output", "fail", f"can't write into {folder}: {error.strerror or error}", fix)]
    return [Check("output", "ok", f"{folder} is writable"), _check_space(folder)]


def check_bucket(output: str) -> Check:
    """Can objects be made and deleted where the dataset shall go, and can Delta tables reach it?"""
    from deltalake.exceptions import DeltaError

    from transforms.parquet_files import is_delta_table, table_uri

    bucket = "/".join(output.split("/")[:3])
    try:
        uri = join(check_folder(output), f".reelscribe-doctor-{uuid.uuid4().hex}")
        delete(uri, write(uri, b"x", replacing=ABSENT))
        is_delta_table(table_uri(output, "videos"))
    except ValueError as error:
        return Check("output", "fail", str(error), "reelscribe curate --output gs://BUCKET/FOLDER ...")
    except FileNotFoundError:
        return Check("output", "fail", f"there is no bucket {bucket}", f"gcloud storage buckets create {bucket}")
    except Refused as error:
        fix = f"gcloud storage buckets add-iam-policy-binding {bucket} --role=roles/storage.objectUser --member=..."
        return Check("output", "fail", str(error), fix)
    except StorageError as error:
        return Check("output", "fail", str(error), "try again; see https://status.cloud.google.com")
    except (OSError, DeltaError) as error:
        # Google's client was let in: Delta's takes fewer kinds of credentials.
        fix = "export GOOGLE_APPLICATION_CREDENTIALS=FILE.json   # of a service account"
        return Check("output", "fail", f"Delta tables cannot reach {output}: {root_cause(error)}", fix)
    return Check("output", "ok", f"{output} is writable")


def _check_space(folder: pathlib.Path) -> Check:
    free = free_gb(str(folder))
    fix = f"df -h '{folder}'   # then free some space, or choose another --output"
    if free < SCARCE_GB:
        return Check("space", "fail", f"{free:.1f} GB free", fix)
    if free < LITTLE_GB:
        return Check("space", "warn", f"{free:.1f} GB free; the reels take some hundred MB an hour of video", fix)
    return Check("space", "ok", f"{free:.0f} GB free")


def check_credentials(deadline_s: float = NETWORK_DEADLINE_S) -> Check:
    """Credentials for gs://, looked up in a child: the search asks the network and has no deadline of its own."""
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return Check("credentials", "ok", "none needed: STORAGE_EMULATOR_HOST is set")
    if not _installed("google.cloud.storage"):
        return Check("credentials", "fail", "the packages for gs:// are missing", "pip install 'reelscribe[gcp]'")
    search = "import google.auth; credentials, project = google.auth.default(); print(project or 'no project')"
    fix = "gcloud auth application-default login"
    try:
        asked = subprocess.run([sys.executable, "-c", search], capture_output=True, text=True, timeout=deadline_s)
    except subprocess.TimeoutExpired:
        return Check("credentials", "fail", f"no answer within {deadline_s:.0f} s", fix)
    if asked.returncode:
        return Check("credentials", "fail", (asked.stderr.strip().splitlines() or ["none found"])[-1], fix)
    return Check("credentials", "ok", f"found, {asked.stdout.strip()}")


def _installed(module: str) -> bool:
    # A missing parent package raises where a missing module gives None.
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(module) is not None
    return False


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    import av.codec

    try:
        av.codec.Codec(name, mode)
    except ValueError:
        return False
    return True
