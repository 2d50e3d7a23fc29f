"""How fast splitting is: against a mere decode, PySceneDetect, and the access pattern of Panda-70M's own code.

    python benchmarks/splitting.py VIDEO...                   # medians and ratios, one table
    python benchmarks/splitting.py --seconds 345 VIDEO...     # each looped, without re-encoding, to at least so long
    python benchmarks/splitting.py --at-once VIDEO            # two videos on two cores against one on one
    python benchmarks/splitting.py --hours 3 VIDEO            # resident memory over a video of three hours

All contenders read the same files in one run, in turns, each in a process of its own that has warmed up on the first
file. Ratios are medians of the rounds' own ratios to the floor: every frame decoded by libavcodec, with all the threads
that it chooses, and thrown away.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import av
import cv2
import scenedetect
from scenedetect.backends import VideoStreamAv

from transforms.allocation import keep_freed_memory
from transforms.detection import SplittingConfig, detect_shots
from transforms.splitting import split_video

#: What the paper's code sets.
CONFIG = SplittingConfig(detector="content", threshold=25.0, min_scene_len=15)
FLOOR = "floor: decode alone"
LIBRARY = "PySceneDetect, OpenCV"
CUTS = "reelscribe, cuts"
TRANSNET = "reelscribe, cuts by TransNetV2"


def floor(path: str) -> None:
    """Decode every frame, with all threads, and look at none."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", 0
        for _ in container.decode(stream):
            pass


def library_opencv(path: str) -> list[int]:
    """PySceneDetect as it comes."""
    return _cuts(scenedetect.detect(path, _content()))


def library_pyav(path: str) -> list[int]:
    """PySceneDetect with its PyAV reader."""
    manager = scenedetect.SceneManager()
    manager.add_detector(_content())
    manager.detect_scenes(VideoStreamAv(path, threading_mode="AUTO"))
    return _cuts(manager.get_scene_list(start_in_scene=True))


def original(path: str) -> list[int]:
    """Panda-70M's pattern: detect, then open the video once more for each boundary frame."""
    scenes = scenedetect.detect(path, _content(), start_in_scene=True)
    for start, end in scenes:
        length = end.frame_num - start.frame_num
        for fraction in (CONFIG.first_fraction, CONFIG.last_fraction):
            capture = cv2.VideoCapture(path)
            capture.set(cv2.CAP_PROP_POS_FRAMES, start.frame_num + int(fraction * length))
            capture.read()
            capture.release()
    return _cuts(scenes)


def cuts_only(path: str) -> list[int]:
    """`reelscribe shots`: the cuts alone."""
    return [first for first, *_ in detect_shots(path, CONFIG)["shots"]][1:]


def cuts_fast(path: str) -> list[int]:
    """The same with `--fast`: no loop filter."""
    return [first for first, *_ in detect_shots(path, SplittingConfig(fast=True))["shots"]][1:]


def split(path: str) -> None:
    """All that `reelscribe curate` takes from the pass: cuts, boundary frames, statistics, the reel on disk."""
    with tempfile.TemporaryDirectory() as folder:
        split_video(path, os.path.join(folder, "reel.arrow"), CONFIG, etag="benchmark")


def transnet(path: str) -> list[int]:
    """The cuts of TransNetV2, on one core."""
    return [first for first, *_ in detect_shots(path, SplittingConfig("transnet"))["shots"]][1:]


CONTENDERS: dict[str, Callable] = {
    FLOOR: floor,
    LIBRARY: library_opencv,
    "PySceneDetect, PyAV": library_pyav,
    "PySceneDetect + a decoder per boundary frame": original,
    CUTS: cuts_only,
    "reelscribe, cuts, --fast": cuts_fast,
    "reelscribe, cuts + boundary frames + reel": split,
    TRANSNET: transnet,
}


def _content() -> scenedetect.ContentDetector:
    return scenedetect.ContentDetector(CONFIG.threshold, min_scene_len=CONFIG.min_scene_len)


def _cuts(scenes: Sequence) -> list[int]:
    return [start.frame_num for start, _ in scenes][1:]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a contender needed for all files, in seconds, and the first frames of the shots it found, by file."""

    wall_s: float
    cpu_s: float
    cuts: list[list[int] | None]


def measure(name: str, paths: Sequence[str], warm_up: str) -> Cost:
    """Let a contender read all files, in this process."""
    contender = CONTENDERS[name]
    if name.startswith("reelscribe"):
        keep_freed_memory()  # as the decoding process does
        cv2.setNumThreads(1)
    contender(warm_up)
    wall, cpu = time.perf_counter(), time.process_time()
    cuts = [contender(path) for path in paths]
    return Cost(time.perf_counter() - wall, time.process_time() - cpu, cuts)


def compare(names: Sequence[str], paths: Sequence[str], warm_up: str, rounds: int) -> list[str]:
    """A Markdown table of the contenders of these names."""
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, measured in costs.items():
            measured.append(Cost(**_in_a_process("--contender", name, "--warm-up", warm_up, *paths)))
    lines = ["| | seconds | x floor | CPU seconds | x floor | cuts |", "|---|---:|---:|---:|---:|---|"]
    base, library = costs[FLOOR], costs[LIBRARY]
    for name, measured in costs.items():
        cells = [name]
        for what in ("wall_s", "cpu_s"):
            ratios = [getattr(mine, what) / getattr(its, what) for mine, its in zip(measured, base, strict=True)]
            cells += [f"{statistics.median(getattr(cost, what) for cost in measured):.2f}"]
            cells += [f"{statistics.median(ratios):.2f}"]
        found, wanted = measured[-1].cuts, library[-1].cuts
        same = "" if None in found else "identical" if found == wanted else "differ"
        lines.append(f"| {' | '.join(cells)} | {same} |")
    faster = [its.wall_s / mine.wall_s for its, mine in zip(library, costs[CUTS], strict=True)]
    lines += ["", f"Cuts alone: {statistics.median(faster):.2f} times as fast as PySceneDetect's default reader."]
    return lines


def _in_a_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=6 * 3600, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def looped(path: str, seconds: float, folder: str) -> str:
    """The video over and over until it is `seconds` long, its packets copied."""
    target = os.path.join(folder, f"{pathlib.Path(path).stem}-looped.mp4")
    with av.open(target, "w") as out:
        offset, written_s, stream = 0, 0.0, None
        while written_s < seconds:
            with av.open(path) as container:
                source = container.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                first, end = source.start_time or 0, 0
                for packet in container.demux(source):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts - first + offset, packet.dts - first + offset
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    out.mux(packet)
                if end <= offset:
                    raise SystemExit(f"{path} has no time stamps to loop by")
                offset, written_s = end, float(end * source.time_base)
    return target


def at_once(path: str, rounds: int) -> list[str]:
    """How much more two videos on two cores get done in a time than one on one core."""
    ratios = []
    for _ in range(rounds):
        began = time.perf_counter()
        _in_a_process("--split-alone", "--cores", "1", path)
        between = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            run = functools.partial(_in_a_process, "--split-alone", "--cores", "2", "--sharing", "2")
            list(pool.map(run, [path, path]))
        ratios.append(2 * (between - began) / (time.perf_counter() - between))
    return [f"Two videos on two cores: {statistics.median(ratios):.2f} times the throughput of one on one core."]


def memory(path: str) -> list[str]:
    """The peak resident memory of splitting one video in a process of its own."""
    done = _in_a_process("--split-alone", path)
    return [f"Peak resident memory: {done['peak_mib']:.0f} MiB; {done['wall_s']:.0f} s for {done['frames']} frames."]


def split_alone(path: str, cores: int | None, sharing: int) -> dict[str, Any]:
    """Split one video in this process, on so many cores."""
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    keep_freed_memory()
    cv2.setNumThreads(1)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        reel = os.path.join(folder, "reel.arrow")
        summary = split_video(path, reel, CONFIG, etag="benchmark", sharing=sharing)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"frames": summary["frames"], "peak_mib": peak_mib, "wall_s": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.0, help="loop each video to at least so long")
    parser.add_argument("--transnet", action="store_true", help="compare TransNetV2, too, which takes its time")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--hours", type=float, default=0.0, help="measure memory over a video looped to so long")
    for flag in ("--contender", "--warm-up"):
        parser.add_argument(flag, help=argparse.SUPPRESS)
    parser.add_argument("--split-alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sharing", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        print(json.dumps(dataclasses.asdict(measure(args.contender, args.videos, args.warm_up))))
        return
    if args.split_alone:
        print(json.dumps(split_alone(args.videos[0], args.cores, args.sharing)))
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = args.hours * 3600 or args.seconds
        paths = [looped(path, seconds, folder) if seconds else path for path in args.videos]
        if args.hours:
            lines = memory(paths[0])
        elif args.at_once:
            lines = at_once(paths[0], args.rounds)
        else:
            names = [name for name in CONTENDERS if name != TRANSNET or args.transnet]
            lines = compare(names, paths, args.videos[0], args.rounds)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
