"""What the evaluations of splitting look at: one video, cut up by each method that is compared.

    study = study_video(source, setting, reels_dir)          # one split pass, one pass a detector, one embedding
    cuttings(study, setting)                                 # {"content alone": Cutting(...), ...}

Without Beam: videos come one after another, and what fails costs its video.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from apache_beam.ml.inference.base import ModelHandler

from beam_pipeline.config import Config
from beam_pipeline.progress import Progress
from model_handlers import catalogue
from model_handlers.catalogue import Entry
from model_handlers.perceptual import Lpips, rows_at_1fps
from transforms.child import Limits, decode
from transforms.detection import THRESHOLDS, SplittingConfig, check_installed
from transforms.embedding import features_of, requests_of
from transforms.media_errors import MediaError, check_file, local_path
from transforms.reading import Source, read_video
from transforms.records import Cue, Failure, ShotFeatures, Span, SplitVideo
from transforms.reel import Reel, ReelError
from transforms.shots import split_local
from transforms.stitching import StitchingConfig, drop_transitions, join_neighbours, stitch

SUBTITLES = "subtitle alignment"

#: What one video's errors are; anything else is the machine's, or ours, and raises.
VIDEO_ERRORS = (MediaError, ReelError, OSError, ValueError)

FoundT = TypeVar("FoundT")
Features = Mapping[int, ShotFeatures | Failure]


@dataclasses.dataclass(frozen=True)
class Embedder:
    """An embedder that is loaded, with the stitching rules whose distances belong to it."""

    entry: Entry
    handler: ModelHandler
    model: Any
    rules: StitchingConfig


class RunningLpips:
    """Max Running LPIPS of the spans of one reel: the greatest distance between key frames a second apart.

    Methods cut a video up alike in many places, so that a pair of frames is compared once only.
    """

    def __init__(self, lpips: Lpips, reel: Reel):
        self._lpips, self._reel = lpips, reel
        self._known: dict[tuple[int, int], float] = {}

    def __call__(self, span: Span) -> float | None:
        """The span's; None where it has fewer than two key frames."""
        rows = rows_at_1fps(self._reel, span)
        pairs = list(itertools.pairwise(rows))
        if any(pair not in self._known for pair in pairs):
            self._known.update(zip(pairs, self._lpips.running(self._reel.frames(rows)), strict=True))
        return max((self._known[pair] for pair in pairs), default=None)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is compared: the configured splitting, detectors alone, and stitching by each embedder."""

    splitting: SplittingConfig
    detectors: tuple[SplittingConfig, ...]
    embedders: tuple[Embedder, ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """A video as all methods saw it.

    Attributes:
      split: the configured splitting, long shots sliced; its reel is what is looked at afterwards.
      shots: by detector, `(start_frame, end_frame, start_s, end_s)` of each shot, ends exclusive, none sliced.
      features: by embedder, of each shot of `split`.
      frame_times: the presentation time of every decoded frame.
    """

    split: SplitVideo
    shots: Mapping[str, Sequence[tuple[int, int, float, float]]]
    features: Mapping[str, Features]
    frame_times: Sequence[float]

    @property
    def source_s(self) -> float:
        """How much of the source was decoded, in seconds."""
        return self.split.shots[-1].end_s - self.split.shots[0].start_s if self.split.shots else 0.0

    def running(self, lpips: Lpips | None) -> RunningLpips | None:
        """What measures the change within its clips, where there are weights to measure it by."""
        return RunningLpips(lpips, Reel.open(self.split.reel)) if lpips is not None else None


@dataclasses.dataclass(frozen=True)
class Cutting:
    """A video cut up by one method: its clips, and the frames at which it sees something new begin.

    The frames are those of the method's shots, events or cues as found, before anything is dropped or trimmed.
    """

    spans: tuple[Span, ...]
    edges: tuple[int, ...]


def choose_detectors(
    wanted: Sequence[str] | None, splitting: SplittingConfig
) -> tuple[list[SplittingConfig], list[str]]:
    """The detectors to compare, all that can run here when none is named; and a line for each that is left out.

    The configured one keeps its threshold, the others have their own defaults.

    Raises:
      ValueError: a name that is none, with the nearest right one; or a named detector that cannot run here.
    """
    chosen: list[SplittingConfig] = []
    notes = []
    for name in wanted or THRESHOLDS:
        config = dataclasses.replace(splitting, detector=name, threshold=None)
        try:
            check_installed(config)
        except ModuleNotFoundError as error:
            missing = f"the detector {config.detector} is not installed; {error}"
            if wanted:
                raise ValueError(missing) from error
            notes.append(missing)
            continue
        if all(config.detector != other.detector for other in chosen):
            chosen.append(splitting if config.detector == splitting.detector else config)
    return chosen, notes


def choose_embedders(wanted: Sequence[str] | None, config: Config) -> tuple[list[Embedder], list[str]]:
    """Load the embedders to compare; all that can be loaded here without a download when none is named.

    Returns:
      them, and a line for each that is left out.

    Raises:
      ValueError: a name that is none, with the nearest right one; or a named embedder that cannot be loaded.
    """
    chosen: dict[str, Embedder] = {}
    notes = []
    # One that the configuration changes is meant as changed; one that would be downloaded must be asked for.
    changed = {config.embedder.name: config.embedder} if config.embedder.settings else {}
    known = {**catalogue.EMBEDDERS, **changed}
    at_hand = [name for name, entry in known.items() if entry.settings is None or name in changed]
    for entry in [catalogue.look_up("embedder", known, name) for name in wanted or at_hand]:
        try:
            rules = rules_for(entry, config)
            handler = entry.build()
            chosen[entry.name] = Embedder(entry, handler, handler.load_model(), rules)
        except ModuleNotFoundError:
            # The command line knows which extra brings a missing package.
            if wanted:
                raise
            notes.append(f"the embedder {entry.name} is left out: its packages are missing (reelscribe teachers)")
        except Exception as error:
            # Weights fail to load in as many ways as there are libraries; all mean that it can't be compared here.
            why = " ".join(str(error).split())[:200] or type(error).__name__
            if wanted:
                raise ValueError(f"the embedder {entry.name} cannot be loaded: {why}") from error
            notes.append(f"the embedder {entry.name} is left out: {why}")
    return list(chosen.values()), notes


def rules_for(entry: Entry, config: Config) -> StitchingConfig:
    """The configured stitching rules, with the distances that were calibrated for `entry`.

    Those of an embedder that nobody has calibrated start from the paper's, which are for ImageBind.
    """
    if entry.name == config.embedder.name:
        return config.stitching
    limits = entry.thresholds or catalogue.PAPER_THRESHOLDS
    rules = config.stitching
    return dataclasses.replace(
        rules,
        transition_distance=limits.transition,
        stitch_distance=limits.stitch,
        still_distance=None if rules.still_distance is None else limits.still,
        redundant_distance=None if rules.redundant_distance is None else limits.redundant,
    )


def study_each(
    sources: Sequence[Source],
    setting: Setting,
    reels_dir: str,
    look: Callable[[Study], FoundT],
    clips_of: Callable[[FoundT], int],
) -> tuple[list[tuple[str, FoundT]], dict[str, str]]:
    """Study video after video, and show on standard error how far it is. One that fails is left out.

    Args:
      look: what is wanted of a study. clips_of: how many clips there are in that, for the progress.

    Returns:
      each URI with what `look` found, in order, and by URI why the others are left out.
    """
    found: list[tuple[str, FoundT]] = []
    failed: dict[str, str] = {}
    clips = 0
    with Progress(len(sources)) as progress:
        for source in sources:
            try:
                one = look(study_video(source, setting, reels_dir))
            except VIDEO_ERRORS as error:
                failed[source.uri] = " ".join(str(error).split()) or type(error).__name__
            else:
                found.append((source.uri, one))
                clips += clips_of(one)
            progress.advance(1, {"clips": clips, "videos failed": len(failed)})
    return found, failed


def study_video(source: Source, setting: Setting, reels_dir: str, limits: Limits | None = None) -> Study:
    """Decode a video for the split and once for each detector, and embed its shots. A finished reel is used again.

    Raises:
      one of VIDEO_ERRORS: the video cannot be used.
    """
    limits = limits or Limits()
    split, _ = split_local(read_video(source), reels_dir, setting.splitting, limits)
    if not split.shots:
        raise ReelError(f"{source.uri} has no frame")
    path = local_path(source.uri)
    shots = {}
    for detector in setting.detectors:
        check_file(path)
        found = decode("shots", {"path": path, "config": dataclasses.asdict(detector)}, limits)
        shots[detector.detector] = [tuple(shot) for shot in found["shots"]]
    features = {embedder.entry.name: embed(split, embedder) for embedder in setting.embedders}
    return Study(split, shots, features, Reel.open(split.reel).statistics()[0].tolist())


def embed(split: SplitVideo, embedder: Embedder) -> Features:
    """The boundary features of each shot, by its index, or why there are none."""
    requests, size = list(requests_of(split)), int(embedder.handler.batch_elements_kwargs()["max_batch_size"])
    batches = (requests[at : at + size] for at in range(0, len(requests), size))
    answered = (outcome for batch in batches for outcome in embedder.handler.run_inference(batch, embedder.model))
    return {shot.index: found for shot, found in map(features_of, answered)}


def cuttings(study: Study, setting: Setting) -> dict[str, Cutting]:
    """The video cut up by each method; without subtitles it has no alignment to them."""
    found = {}
    cues = study.split.video.cues or study.split.embedded_cues
    if cues:
        found[SUBTITLES] = align_to_cues(cues, study)
    for name, shots in study.shots.items():
        spans = tuple(Span(start_s, end_s) for _, _, start_s, end_s in shots)
        found[alone(name)] = Cutting(spans, tuple(start for start, *_ in shots[1:]))
    for embedder in setting.embedders:
        name = stitched_by(setting.splitting.detector, embedder.entry.name)
        found[name] = stitched(study, study.features[embedder.entry.name], embedder.rules)
    return found


def alone(detector: str) -> str:
    return f"{detector} alone"


def stitched_by(detector: str, embedder: str) -> str:
    return f"{detector} + stitching by {embedder}"


def stitched(study: Study, features: Features, rules: StitchingConfig) -> Cutting:
    """The clips of our splitting, and the edges of its events."""
    clips = stitch(study.split, features, rules).clips
    return Cutting(tuple(clip.span for clip in clips), event_edges(study.split, features, rules))


def event_edges(split: SplitVideo, features: Features, rules: StitchingConfig) -> tuple[int, ...]:
    """The first frames of all shots that rules 1 and 2 do not join to the one before."""
    chain: list[ShotFeatures | None] = []
    for shot in split.shots:
        found = features[shot.index]
        chain += [None] if isinstance(found, Failure) else drop_transitions([found], rules.transition_distance)[0]
    events = join_neighbours(chain, rules.stitch_distance)
    joined = {other.shot.index for event in events for other in event.shots[1:]}
    return tuple(shot.start_frame for shot in split.shots[1:] if shot.index not in joined)


def align_to_cues(cues: Iterable[Cue], study: Study) -> Cutting:
    """One clip a cue, as far as it lies inside the video; the paper's baseline of subtitle alignment."""
    first_s, end_s = study.split.shots[0].start_s, study.split.shots[-1].end_s
    spans = [Span(max(cue.start_s, first_s), min(cue.end_s, end_s)) for cue in cues]
    spans = [span for span in spans if span.duration_s > 0]
    times = study.frame_times
    edges = {bisect.bisect_left(times, at - 1e-6) for span in spans for at in (span.start_s, span.end_s)}
    return Cutting(tuple(spans), tuple(sorted(edge for edge in edges if 0 < edge < len(times))))
