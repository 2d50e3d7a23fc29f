"""Does a watch keep its memory and its pace? Thousands of tiny videos through `reelscribe watch`, as they come.

    python benchmarks/streaming.py --videos 10000 --drawing docs/streaming.svg --json streaming.json

Videos are put into a folder in lots of 500 while the watch runs; its memory (resident, with its decoding children) is
taken every five seconds, beside the number of videos that are committed. At the end every video must have its row, and
`verify` must find no breach.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import av
import numpy as np
from deltalake import DeltaTable

from beam_pipeline.evaluate_plots import scatter, standalone
from beam_pipeline.verify import audit

SAMPLE_S = 5.0
LOT = 500
#: Different ones, which are then copied.
KINDS = 20
IDLE_EXIT_S = 30


@dataclasses.dataclass(frozen=True)
class Sample:
    """Seconds since the start, videos committed, and the resident memory of the watch and its children in MiB."""

    seconds: float
    videos: int
    mib: float


def write_tiny(path: pathlib.Path, seed: int) -> None:
    """Three seconds of 64 x 36 in which a pattern moves."""
    canvas = np.random.default_rng(seed).integers(0, 255, (36, 160, 3), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(canvas[:, number : number + 64]), "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def upload(folder: pathlib.Path, kinds: list[pathlib.Path], count: int) -> Iterator[int]:
    """Put so many videos into a folder, a lot at a time; give how many there are."""
    for start in range(0, count, LOT):
        for number in range(start, min(start + LOT, count)):
            aside = folder / f"v{number:06d}.part"
            shutil.copyfile(kinds[number % len(kinds)], aside)
            aside.rename(aside.with_suffix(".mp4"))
        yield min(start + LOT, count)


def resident_mib(pid: int) -> float:
    """Of a process and all its children."""
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "status").read_text()
            except OSError:
                continue
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            children.setdefault(int(fields["PPid"]), []).append(int(entry.name))
            sizes[int(entry.name)] = int(fields.get("VmRSS", "0 kB").split()[0])
    total, left = 0, [pid]
    while left:
        one = left.pop()
        total += sizes.get(one, 0)
        left += children.get(one, [])
    return total / 1024


def committed(dataset: pathlib.Path) -> int:
    """Rows of `videos`, of the log alone."""
    if not DeltaTable.is_deltatable(str(dataset / "videos")):
        return 0
    return sum(DeltaTable(str(dataset / "videos")).get_add_actions(flatten=True)["num_records"].to_pylist())


def run(count: int, folder: pathlib.Path) -> tuple[list[Sample], int]:
    """Watch while `count` videos come; the samples, and the watch's exit status."""
    uploads, dataset = folder / "uploads", folder / "dataset"
    uploads.mkdir()
    kinds = [folder / f"kind{seed}.mp4" for seed in range(KINDS)]
    for seed, kind in enumerate(kinds):
        write_tiny(kind, seed)
    command = [sys.executable, "-m", "beam_pipeline.cli", "watch", "--input", str(uploads), "--output", str(dataset)]
    # One teacher: what is looked at is the streaming, not the models.
    (folder / "config.yaml").write_text("extends: lite\nteachers: [lite-frame]\n", encoding="utf-8")
    command += [
        "--config",
        str(folder / "config.yaml"),
        "--settle",
        "1",
        "--round-videos",
        "32",
        "--quiet",
        "10",
        "--idle-exit",
        str(IDLE_EXIT_S),
    ]
    samples: list[Sample] = []
    began = time.monotonic()
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        watching = subprocess.Popen(command, stdout=log, stderr=log)
        coming = upload(uploads, kinds, count)
        there = next(coming)
        while watching.poll() is None:
            time.sleep(SAMPLE_S)
            done = committed(dataset)
            samples.append(Sample(time.monotonic() - began, done, resident_mib(watching.pid)))
            # Enough waits at any time, and never all of it.
            if there - done < LOT:
                there = next(coming, there)
    return [sample for sample in samples if sample.mib > 0], watching.returncode


def growth_mib(samples: list[Sample]) -> float:
    """How much more the last fifth holds than the second one did: the first is start-up, models and all."""
    whole = [sample for sample in samples if sample.videos]
    fifth = max(len(whole) // 5, 1)
    early, late = whole[fifth : 2 * fifth] or whole[:1], whole[-fifth:]
    return statistics.median(one.mib for one in late) - statistics.median(one.mib for one in early)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--drawing", metavar="FILE.svg")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        samples, status = run(args.videos, folder)
        audited = audit(folder / "dataset")
        last = next(sample for sample in samples if sample.videos == max(one.videos for one in samples))
        found = {
            "videos": args.videos,
            "committed": audited.counts["videos"],
            "ok": audited.counts["videos_ok"],
            "breaches": audited.breaches,
            "exit_status": status,
            "seconds": round(last.seconds, 1),
            "videos_per_second": round(last.videos / last.seconds, 2),
            "median_mib": round(statistics.median(one.mib for one in samples if one.videos)),
            "growth_mib": round(growth_mib(samples), 1),
            "cores": os.cpu_count(),
        }
        if status:
            print((folder / "log.txt").read_text()[-4000:], file=sys.stderr)
    print(json.dumps(found, indent=1))
    if args.json:
        samples_told = [dataclasses.asdict(sample) for sample in samples]
        pathlib.Path(args.json).write_text(json.dumps({**found, "samples": samples_told}) + "\n", encoding="utf-8")
    if args.drawing:
        title = f"Resident memory of a watch over {args.videos} videos"
        path = [(float(sample.videos), sample.mib) for sample in samples]
        drawing = scatter([], title=title, x_name="videos committed", y_name="MiB resident", path=[(0.0, 0.0), *path])
        pathlib.Path(args.drawing).write_text(standalone(drawing), encoding="utf-8")
    return 0 if status == 0 and found["committed"] == args.videos and not audited.breaches else 1


if __name__ == "__main__":
    sys.exit(main())
