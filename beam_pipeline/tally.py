"""Adds up what the pipelines of a run counted: rows by kind, seconds by stage, bytes read; and what each stage did.

tally = Tally(); tally.add(result.metrics()); tally.counts["clips"]; tally.stages()["split"]["failed"]
"""

from __future__ import annotations

import collections
import re
import threading
from collections.abc import Mapping
from typing import Any

from apache_beam.metrics.metric import MetricResults

from transforms.counting import MICROS
from transforms.counting import STAGES as FLOW
from transforms.rows import COUNTS

#: The stage that a model's handler belongs to, by the place of its step in the recipe.
STAGES = {
    "Hear videos": "hear",
    "Embed shots": "embed",
    "Measure clips": "measure",
    "Caption clips": "caption",
    "Judge captions": "score",
    "Clean captions": "clean",
}

#: What a stage tells beside `in`, `out`, `failed` and `seconds`, in the order of the recipe.
FLOWS: Mapping[str, tuple[str, ...]] = {
    "read": ("bytes",),
    "split": ("reused", "bytes"),
    "hear": ("reused",),
    "embed": ("reused",),
    "stitch": ("rejected", "reused", "in_s", "out_s", "rejected_s", "failed_s"),
    "caption": (),
    "measure": ("reused",),
    "filter": ("rejected",),
    "score": ("reused",),
    "clean": (),
    "media": ("reused",),
    "commit": ("repeated", "superseded"),
}
#: Stages that a configuration may leave out.
_OPTIONAL = frozenset(["hear", "measure", "filter", "clean", "media"])
ALWAYS = ("in", "out", "failed")
OF_A_TEACHER = ("asked", "captions", "failed", "not_applicable", "reused")

#: The step in which a teacher is asked, or those that take turns.
_ASKED = re.compile(r"Caption clips/Ask ([^/]+)/")
_TOGETHER = "together"


class Tally:
    """Adds up the metrics of pipelines, of several at once if need be.

    Attributes:
      counts: of rows and reads. seconds: of work per stage, summed over workers. bytes: read from sources.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.bytes: dict[str, int] = {"source": 0}
        self._flow: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self._asked_s: dict[str, float] = collections.defaultdict(float)
        self._lock = threading.Lock()

    def add(self, metrics: MetricResults) -> None:
        """Add one pipeline's metrics."""
        found = metrics.query()
        with self._lock:
            for counter in found["counters"]:
                # Beam says None of a counter at 0 where a runner tells what was committed alone, as portable ones do.
                self._count(counter.key.metric.namespace, counter.key.metric.name, counter.result or 0)
            for distribution in found["distributions"]:
                metric = distribution.key.metric
                self._time(distribution.key.step, metric.namespace, metric.name, distribution.result.sum / 1e6)

    def stages(self) -> dict[str, dict[str, Any]]:
        """What went into each stage and what became of it: `in = out + failed`, of which `reused` was there already.

        Videos in `read`, `split`, `hear` and `commit`, shots in `embed`, clips from `caption` to `media`. In `stitch`
        shots go in, clips come out, and spans are rejected or failed; there the lengths add up: in_s = out_s +
        rejected_s + failed_s. `caption` says of each teacher how many clips it was asked about (asked = captions +
        failed), and how many it was not (asked + not_applicable + reused = in). `measure` counts each measure of each
        clip, and says of each how many clips it looked at. `seconds` are of work, summed over workers.
        """
        with self._lock:
            told = {stage: self._stage(stage) for stage in FLOWS if stage not in _OPTIONAL or self._flow[stage]}
            told["caption"]["teachers"] = {
                name.partition("/")[2]: self._teacher(name.partition("/")[2])
                for name in sorted(self._flow)
                if name.startswith("caption/")
            }
            if "measure" in told:
                told["measure"]["measures"] = {
                    name.partition("/")[2]: {
                        "clips": flow["clips"],
                        "seconds": round(flow["seconds" + MICROS] / 1e6, 3),
                    }
                    for name, flow in sorted(self._flow.items())
                    if name.startswith("measure/")
                }
            return told

    def _stage(self, stage: str) -> dict[str, Any]:
        flow = self._flow[stage]
        numbers = {
            name: round(flow[name.removesuffix("_s") + MICROS] / 1e6, 3) if name.endswith("_s") else flow[name]
            for name in (*ALWAYS, *FLOWS[stage])
        }
        seconds = self.seconds.get(stage, 0.0) + flow["seconds" + MICROS] / 1e6
        return {**numbers, "seconds": round(seconds, 3)}

    def _teacher(self, name: str) -> dict[str, Any]:
        flow = self._flow[f"caption/{name}"]
        return {**{one: flow[one] for one in OF_A_TEACHER}, "seconds": round(self._asked_s.get(name, 0.0), 3)}

    def _count(self, space: str, name: str, value: int) -> None:
        if space.startswith(FLOW):
            self._flow[space.removeprefix(FLOW)][name] += value
        elif name.endswith("_ms") and space != COUNTS:
            self.seconds[name.removesuffix("_ms")] += value / 1000
        elif name == "source_bytes":
            self.bytes["source"] += value
        elif space.startswith("reelscribe/"):
            self.counts[name if space == COUNTS else f"{space.removeprefix('reelscribe/')} {name}"] += value

    def _time(self, step: str, space: str, name: str, seconds: float) -> None:
        asked = _ASKED.search(step)
        if name == "inference_batch_latency_micro_secs":
            stage = next((stage for place, stage in STAGES.items() if place in step), "inference")
            self.seconds[stage] += seconds
            if asked and asked[1] != _TOGETHER:
                self._asked_s[asked[1]] += seconds
        elif name == "compute_micro_secs" and asked and asked[1] == _TOGETHER:
            # Of a round of several models: each one tells its own share.
            self._asked_s[space.removeprefix("reelscribe/")] += seconds
