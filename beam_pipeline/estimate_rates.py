"""What a stage's work takes, as a run measured it or as somebody enters it; nothing is known that nobody said.

    measured = measured_run(record)            # record: of runs/RUN_ID.json
    measured.rates["split"].seconds            # of one vCPU, for a second of video

A run's seconds are of work, summed over its workers (see `beam_pipeline.tally`). By default a run has as many workers
as the machine has cores, so that a second of work is a second of one core.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Any

#: What each stage's rate is told for, in the order of the recipe. A teacher's is for a clip that it is asked about.
UNITS = {
    "read": "video",
    "split": "second of video",
    "hear": "second of video",
    "embed": "shot",
    "stitch": "shot",
    "measure": "clip",
    "caption": "clip",
    "score": "clip",
    "clean": "clip",
    "media": "clip",
    "commit": "video",
}
TEACHER = "caption/"
DEVICES = ("cpu", "gpu")

#: Stages of one model, by the key of the configuration that names it.
_MODELS = {"hear": "speech", "embed": "embedder", "score": "selector"}

#: Less than this is told as a weak basis: of these, means over videos as unlike as any collection's still swing widely.
ENOUGH = {"videos": 10, "minutes of video": 10, "clips": 100}
#: A teacher asked less often than this tells mostly how long its first answer took.
ENOUGH_ASKED = 30
#: Above this share of videos whose split was used again, little was measured.
MOST_REUSED = 0.5


@dataclasses.dataclass(frozen=True)
class Rate:
    """What a unit of a stage takes.

    Attributes:
      seconds: of work, for one of `UNITS`.
      on: "cpu": seconds of one vCPU; "gpu": seconds of one GPU.
      source: where it is from, for the list of assumptions.
      share: of a teacher: how many clips it is asked about, for each clip of the dataset.
      pool: the workers that do it, where somebody said so.
      settings: of the stage when it was measured; None: whoever entered it answers for it.
    """

    seconds: float
    on: str
    source: str
    share: float | None = None
    pool: str | None = None
    settings: Any = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the record of a run tells.

    Attributes:
      run_id: the run's. config: its configuration, as recorded.
      rates: by stage, "caption/TEACHER" of a teacher; unmeasured: why a stage of the run has none.
      fresh_videos: that were split, not used again. videos, video_s, shots, clips: that it went through.
      bytes_of: what one second of video leaves as reels, one clip as rows and as a file of its own.
      busy: the share of its workers' time that its stages' seconds account for; None: cannot be told.
      finish_s: that compacting and marking duplicates took, on one machine.
      weak: why the run is a weak basis. weak_stages: the same of single stages.
      assumed: what has to be believed to use it.
    """

    run_id: str
    config: Mapping[str, Any]
    rates: Mapping[str, Rate]
    unmeasured: Mapping[str, str]
    fresh_videos: int
    videos: int
    video_s: float
    shots: int
    clips: int
    bytes_of: Mapping[str, float]
    busy: float | None
    finish_s: float
    weak: tuple[str, ...]
    weak_stages: Mapping[str, str]
    assumed: tuple[str, ...]


def measured_run(record: Mapping[str, Any], models_on: str | None = None, *, alone: bool = True) -> Measured:
    """Take the rates out of the record of a run.

    Args:
      models_on: where its models stood, one of `DEVICES`; None: on GPUs where its configuration has an accelerator.
      alone: the dataset held nothing before it; what it holds now can be told a second of video.

    Raises:
      ValueError: it tells nothing of its stages, or split no video.
    """
    run_id, stages = str(record.get("run_id")), record.get("stages")
    if not isinstance(stages, Mapping) or not isinstance(record.get("config"), Mapping):
        told = "does not tell its stages, as of a template's job; take a run of reelscribe curate"
        raise ValueError(f"the record of run {run_id} {told}")
    counts, config = record.get("counts") or {}, record["config"]
    videos, clips = stages["commit"]["in"], counts.get("clips", 0)
    split, shots = stages["split"], stages["stitch"]["in"]
    video_s = counts.get("video_ms", 0) / 1000
    if not video_s:
        raise ValueError(f"run {run_id} split no video: all of it was there already, or failed")
    units = {"video": videos, "second of video": video_s, "shot": shots, "clip": clips}
    rates: dict[str, Rate] = {}
    unmeasured: dict[str, str] = {}
    source = f"run {run_id}"
    for stage, flow in stages.items():
        if stage not in UNITS or stage == "caption":
            continue
        # Stitching counts clips that were there already, of shots that go in; it costs next to nothing.
        fresh = flow["in"] - (flow.get("reused", 0) if stage != "stitch" else 0)
        if not fresh or not units[UNITS[stage]]:
            unmeasured[stage] = f"run {run_id} did none of it" + (" anew" if flow["in"] else "")
            continue
        # What was used again would have cost as much as what was not.
        whole_s = flow["seconds"] * flow["in"] / fresh
        on = device_of(stage, config, models_on)
        rates[stage] = Rate(whole_s / units[UNITS[stage]], on, source, settings=settings_of(stage, config))
    for name, flow in stages["caption"].get("teachers", {}).items():
        stage = TEACHER + name
        if not flow["asked"] or not clips:
            unmeasured[stage] = f"run {run_id} asked it about no clip"
            continue
        if any("url" in one for one in _said_of(stage, config)):
            unmeasured[stage] = "an endpoint computes it, at a speed and price of its own"
            continue
        share = (flow["asked"] + flow["reused"]) / clips
        on, settings = device_of(stage, config, models_on), settings_of(stage, config)
        rates[stage] = Rate(flow["seconds"] / flow["asked"], on, source, share, settings=settings)
    seconds = record.get("seconds") or {}
    fresh_videos = split["in"] - split.get("reused", 0)
    whole = alone and not counts.get("unchanged") and not split.get("reused")
    return Measured(
        run_id=run_id,
        config=config,
        rates=rates,
        unmeasured=unmeasured,
        fresh_videos=fresh_videos,
        videos=videos,
        video_s=video_s,
        shots=shots,
        clips=clips,
        bytes_of=_bytes_of(record.get("bytes") or {}, video_s, clips) if whole else {},
        busy=_busy(record, seconds),
        finish_s=seconds.get("finish", 0.0) + seconds.get("duplicates", 0.0),
        weak=(*_weak(record, stages, fresh_videos, video_s, clips), *_in_turns(record, rates)),
        weak_stages=_weak_stages(stages),
        assumed=tuple(_assumed(record, config, models_on, whole)),
    )


def settings_of(stage: str, config: Mapping[str, Any]) -> Any:
    """What of a configuration decides how long a stage takes, to compare that of a run with that of a job."""
    if stage.startswith(TEACHER):
        return stage.removeprefix(TEACHER)
    keys = {"split": "splitting", "hear": "speech", "embed": "embedder", "score": "selector", "clean": "hygiene"}
    keys |= {"measure": "measures", "media": "write_clips"}
    found = config.get(keys.get(stage, ""))
    return sorted(found) if stage == "measure" and found else found


def device_of(stage: str, config: Mapping[str, Any], models_on: str | None) -> str:
    """Where a stage of a configuration is worked on: stages with models as told, or as their accelerator says."""
    if stage not in _MODELS and not stage.startswith(TEACHER):
        # Measures compute on plain pixels, most of them; rates of others are entered.
        return "cpu"
    if models_on:
        return models_on
    own = any(one.get("accelerator") for one in _said_of(stage, config))
    return "gpu" if own or (config.get("placement") or {}).get("accelerator") else "cpu"


def _said_of(stage: str, config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a configuration says of a stage's model beside its name."""
    values = config.get("values") or {}
    if stage.startswith(TEACHER):
        name = stage.removeprefix(TEACHER)
        return [one for one in values.get("teachers") or [] if isinstance(one, Mapping) and one.get("name") == name]
    said = values.get(_MODELS[stage])
    return [said] if isinstance(said, Mapping) else []


def _bytes_of(sizes: Mapping[str, int], video_s: float, clips: int) -> dict[str, float]:
    found = {"reels": sizes.get("reels", 0) / video_s}
    if clips:
        found |= {kind: sizes.get(kind, 0) / clips for kind in ("clips", "media") if kind in sizes}
    return found


def workers_of(record: Mapping[str, Any]) -> int | None:
    """How many workers a run on one machine asked for; None: as many as there were cores."""
    told = _flag(record, "direct_num_workers")
    return int(told) if told and told.isdigit() else None


def runner_of(record: Mapping[str, Any]) -> str | None:
    """The runner that a run asked for; None: the one of the machine it was started on."""
    return _flag(record, "runner")


def _flag(record: Mapping[str, Any], name: str) -> str | None:
    flags = " ".join((record.get("options") or {}).get("beam_flags") or [])
    found = re.search(rf"--{name}[= ](\S+)", flags)
    return found[1] if found else None


def _busy(record: Mapping[str, Any], seconds: Mapping[str, float]) -> float | None:
    """The share of the workers' time in stages; of runs that do not tell how many workers they had, none."""
    workers = None if runner_of(record) else workers_of(record) or record.get("cores")
    try:
        times = [datetime.datetime.fromisoformat(record[name]) for name in ("started_at", "finished_at")]
    except (KeyError, TypeError, ValueError):
        return None
    wall_s = (times[1] - times[0]).total_seconds()
    return sum(seconds.values()) / (workers * wall_s) if workers and wall_s > 0 else None


def _weak(record: Mapping[str, Any], stages: Mapping[str, Any], fresh: int, video_s: float, clips: int) -> list[str]:
    told = []
    for what, amount in zip(ENOUGH, (fresh, video_s / 60, clips), strict=True):
        if amount < ENOUGH[what]:
            told.append(f"it measured {amount:.3g} {what}; {ENOUGH[what]} or more would be better")
    split = stages["split"]
    if split["in"] and split.get("reused", 0) / split["in"] > MOST_REUSED:
        told.append(
            f"{split['reused']} of {split['in']} videos were split by an earlier run; a new --output measures all"
        )
    if record.get("status") != "done":
        told.append(f"it is {record.get('status')!r}, not done")
    return told


def _weak_stages(stages: Mapping[str, Any]) -> dict[str, str]:
    """Stages that took too little to be told, and teachers that were asked too seldom."""
    told = {stage: "took no time that could be told" for stage, flow in stages.items() if not flow["seconds"]}
    for name, flow in stages["caption"].get("teachers", {}).items():
        if flow["asked"] < ENOUGH_ASKED:
            told[TEACHER + name] = f"was asked about {flow['asked']} of {stages['caption']['in']} clips"
    return told


def _in_turns(record: Mapping[str, Any], rates: Mapping[str, Rate]) -> list[str]:
    """Whether several workers may have stood in line for a GPU: what each of them waits counts as its work."""
    if workers_of(record) == 1 or all(rate.on == "cpu" for rate in rates.values()):
        return []
    return ["its workers may have waited for the GPU in turns, which seconds hold; --direct_num_workers=1 tells better"]


def _assumed(record: Mapping[str, Any], config: Mapping[str, Any], models_on: str | None, whole: bool) -> list[str]:
    run_id, workers = record.get("run_id"), workers_of(record)
    devices = {device_of(TEACHER + name, config, models_on) for name in config.get("teachers") or []}
    stood = " and ".join(sorted(device.upper() for device in devices)) or "CPU"
    why = "as --models-on says" if models_on else "as its configuration says"
    told = [f"run {run_id}: its models stood on the {stood}, {why}"]
    if runner := runner_of(record):
        told.append(
            f"run {run_id} was one of {runner}: no worker had more threads at work than vCPUs, or it tells more"
        )
    elif workers:
        told.append(
            f"run {run_id} had {workers} workers: no fewer than the machine had cores, else its seconds tell less"
        )
    else:
        told.append(f"run {run_id} had as many workers as cores, so a second of its CPU work is a second of one core")
    inputs = [str(one) for one in record.get("input") or []]
    if not any(one.startswith("gs://") for one in inputs):
        told.append(f"run {run_id} read local files; copying sources out of a bucket is not in its seconds")
    if not whole:
        told.append(f"run {run_id} added to a dataset, so bytes of reels and clips cannot be told from it")
    return told
