"""How fast splitting is: against a mere decode, PySceneDetect, and the access pattern of Panda-70M's own code.

    python benchmarks/splitting.py VIDEO...                   # medians and ratios, one table
    python benchmarks/splitting.py --seconds 345 VIDEO...     # each looped, without re-encoding, to at least so long
    python benchmarks/splitting.py --at-once VIDEO...         # two videos at once against one after the other
    python benchmarks/splitting.py --hours 3 VIDEO            # resident memory over a video of three hours

All contenders read the same files in one run, in turns, so that whatever else the machine does hits all of them alike.
Ratios are medians of the rounds' own ratios to the floor: every frame decoded by libavcodec, with all its threads, and
thrown away.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import av
import cv2
import scenedetect
from scenedetect.backends import VideoStreamAv

from transforms.detection import SplittingConfig, detect_shots
from transforms.splitting import split_video

#: What the paper's code sets.
CONFIG = SplittingConfig(detector="content", threshold=25.0, min_scene_len=15)
#: Seconds of wall time, seconds of processor time.
Cost = tuple[float, float]


def floor(path: str) -> None:
    """Decode every frame, with all threads, and look at none."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", 0
        for _ in container.decode(stream):
            pass


def library_opencv(path: str) -> list[int]:
    """PySceneDetect as it comes."""
    cv2.setNumThreads(-1)
    return _cuts(scenedetect.detect(path, _content()))


def library_pyav(path: str) -> list[int]:
    """PySceneDetect with its PyAV reader."""
    cv2.setNumThreads(-1)
    manager = scenedetect.SceneManager()
    manager.add_detector(_content())
    manager.detect_scenes(VideoStreamAv(path, threading_mode="AUTO"))
    return _cuts(manager.get_scene_list(start_in_scene=True))


def original(path: str) -> list[int]:
    """Panda-70M's pattern: detect, then open the video once more for each boundary frame."""
    cv2.setNumThreads(-1)
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
    cv2.setNumThreads(1)
    return [first for first, *_ in detect_shots(path, CONFIG)["shots"]][1:]


def cuts_fast(path: str) -> list[int]:
    """The same with `--fast`: no loop filter."""
    cv2.setNumThreads(1)
    return [first for first, *_ in detect_shots(path, SplittingConfig(fast=True))["shots"]][1:]


def split(path: str) -> None:
    """All that `reelscribe curate` takes from the pass: cuts, boundary frames, statistics, the reel on disk."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        split_video(path, os.path.join(folder, "reel.arrow"), CONFIG, etag="benchmark")


CONTENDERS: dict[str, Callable] = {
    "floor: decode alone": floor,
    "PySceneDetect, OpenCV": library_opencv,
    "PySceneDetect, PyAV": library_pyav,
    "PySceneDetect + a decoder per boundary frame": original,
    "reelscribe, cuts": cuts_only,
    "reelscribe, cuts, --fast": cuts_fast,
    "reelscribe, cuts + boundary frames + reel": split,
}


def _content() -> scenedetect.ContentDetector:
    return scenedetect.ContentDetector(CONFIG.threshold, min_scene_len=CONFIG.min_scene_len)


def _cuts(scenes: Sequence) -> list[int]:
    return [start.frame_num for start, _ in scenes][1:]


def cost_of(contender: Callable, paths: Sequence[str]) -> tuple[Cost, list]:
    """What a contender costs over all files, and the cuts it found."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = [contender(path) for path in paths]
    return (time.perf_counter() - wall, time.process_time() - cpu), found


def compare(paths: Sequence[str], rounds: int) -> list[str]:
    """A Markdown table of all contenders."""
    costs: dict[str, list[Cost]] = {name: [] for name in CONTENDERS}
    cuts: dict[str, list] = {}
    for contender in CONTENDERS.values():
        cost_of(contender, paths[:1])  # what is imported and compiled on first use is nobody's cost
    for _ in range(rounds):
        for name, contender in CONTENDERS.items():
            cost, cuts[name] = cost_of(contender, paths)
            costs[name].append(cost)
    lines = ["| | seconds | x floor | CPU seconds | x floor | cuts |", "|---|---:|---:|---:|---:|---|"]
    base, truth = costs["floor: decode alone"], cuts["PySceneDetect, OpenCV"]
    for name, measured in costs.items():
        cells = [name]
        for side in (0, 1):
            ratios = [mine[side] / floors[side] for mine, floors in zip(measured, base, strict=True)]
            cells += [f"{statistics.median(cost[side] for cost in measured):.2f}", f"{statistics.median(ratios):.2f}"]
        found = cuts[name]
        same = "" if None in found else "identical" if found == truth else "differ"
        lines.append(f"| {' | '.join(cells)} | {same} |")
    faster = [
        lib[0] / ours[0] for lib, ours in zip(costs["PySceneDetect, OpenCV"], costs["reelscribe, cuts"], strict=True)
    ]
    lines += ["", f"Cuts alone: {statistics.median(faster):.2f} times as fast as PySceneDetect's default reader."]
    return lines


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


def at_once(paths: Sequence[str], rounds: int) -> list[str]:
    """How much sooner two videos are split at once, in processes of their own, than one after the other."""

    def run(path: str) -> None:
        subprocess.run([sys.executable, __file__, "--only-split", path], check=True, timeout=3600)

    ratios = []
    for _ in range(rounds):
        for path in paths:
            began = time.perf_counter()
            run(path), run(path)
            between = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(run, [path, path]))
            ratios.append((between - began) / (time.perf_counter() - between))
    return [f"Two videos at once: {statistics.median(ratios):.2f} times one after the other."]


def memory(path: str) -> list[str]:
    """The peak resident memory of splitting one video in a process of its own."""
    began = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--only-split", path], check=True, timeout=6 * 3600)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return [f"Peak resident memory: {peak:.0f} MiB; {time.perf_counter() - began:.0f} s."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.0, help="loop each video to at least so long")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--hours", type=float, default=0.0, help="measure memory over a video looped to so long")
    parser.add_argument("--only-split", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_split:
        split(args.videos[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = args.hours * 3600 or args.seconds
        paths = [looped(path, seconds, folder) if seconds else path for path in args.videos]
        if args.hours:
            lines = memory(paths[0])
        else:
            lines = at_once(paths, args.rounds) if args.at_once else compare(paths, args.rounds)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
