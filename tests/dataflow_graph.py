"""A pipeline as Dataflow would be given it, made without a network: the job, its graph, and how that would fuse.

    job = translated(lambda pipeline: pipeline | beam.Create(sources) | CurateVideos(...), tmp_path, flags)
    job.hinted(ACCELERATOR); job.stages(); job.values["type"]

The graph is what Beam (2.77) stages for the service. How that fuses it is its own affair; `stages` is what Beam's
portable fuser makes of it, by the same rules: no stage goes across a shuffle, or from one environment to another.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.internal.gcp import auth
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

IMAGE = "europe-west4-docker.pkg.dev/proj-test/reelscribe/worker:1"

ACCELERATOR, MIN_RAM = "beam:resources:accelerator:v1", "beam:resources:min_ram_bytes:v1"


@dataclasses.dataclass(frozen=True)
class Job:
    """What Dataflow would be given.

    Attributes:
      values: the job, as its API has it. graph: the pipeline that it names.
      told: everything that is sent or staged, as bytes; what Beam pickled and packed stands in it unpacked, too.
    """

    values: dict[str, Any]
    graph: beam_runner_api_pb2.Pipeline
    told: bytes

    @property
    def environment(self) -> dict[str, Any]:
        return self.values["environment"]

    @property
    def pool(self) -> dict[str, Any]:
        (pool,) = self.environment["workerPools"]
        return pool

    @property
    def steps(self) -> dict[str, beam_runner_api_pb2.PTransform]:
        """The steps that run on workers, by name."""
        transforms = self.graph.components.transforms.values()
        return {one.unique_name: one for one in transforms if one.environment_id and not one.subtransforms}

    def hinted(self, urn: str) -> dict[str, str]:
        """{step: value} of every step that runs with this resource hint."""
        environments = self.graph.components.environments
        hints = {name: environments[step.environment_id].resource_hints for name, step in self.steps.items()}
        return {name: found[urn].decode() for name, found in hints.items() if urn in found}

    def images(self) -> set[str]:
        """The container images of all environments."""
        payloads = (one.payload for one in self.graph.components.environments.values())
        return {beam_runner_api_pb2.DockerPayload.FromString(payload).container_image for payload in payloads}

    def stages(self) -> list[frozenset[str]]:
        """Which steps would be fused: the steps of each stage that runs user code."""
        stages = fused(self.graph)
        ours = set(self.steps)
        return [steps for stage in stages if (steps := frozenset(name for name in stage if name in ours))]


def translated(
    build: Callable[[beam.Pipeline], Any], folder: pathlib.Path, flags: Sequence[str] = (), *, streaming: bool = False
) -> Job:
    """Have Beam make a Dataflow job of a pipeline, and write it into a folder instead of sending it.

    Args:
      flags: options of Beam's, beside those that say where a job runs.
    """
    staged = folder / "staged"
    staged.mkdir(parents=True)
    options = [
        "--runner=DataflowRunner",
        "--project=proj-test",
        "--region=europe-west4",
        "--job_name=reelscribe-test",
        "--no_auth",
        # Nothing listens there: the name alone keeps Beam from asking the services.
        "--dataflow_endpoint=http://localhost:9",
        f"--template_location={folder / 'job.json'}",
        f"--staging_location={staged}",
        f"--temp_location={folder / 'temp'}",
        f"--sdk_container_image={IMAGE}",
        "--sdk_location=container",
        *(["--streaming"] if streaming else []),
        *flags,
    ]
    before = auth._Credentials._credentials_init, auth._Credentials._credentials
    # Or Beam looks for credentials for half a minute.
    auth._Credentials._credentials_init, auth._Credentials._credentials = True, None
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(options, save_main_session=False))
        build(pipeline)
        pipeline.run()
    finally:
        auth._Credentials._credentials_init, auth._Credentials._credentials = before
    files = [pathlib.Path(root) / name for root, _, names in os.walk(folder) for name in names]
    graph = beam_runner_api_pb2.Pipeline.FromString((staged / "pipeline.pb").read_bytes())
    told = b"\n".join(file.read_bytes() for file in files)
    return Job(json.loads((folder / "job.json").read_text()), graph, b"\n".join([told, *unpacked(told)]))


def unpacked(told: bytes) -> list[bytes]:
    """What Beam's pickler packed, which is bz2 or zlib in base64; a search for words would not see into it."""
    found = []
    for packed in re.findall(rb"(?:Qlpo|e[JN])[A-Za-z0-9+/]{16,}={0,2}", told):
        # The message around it may go on with bytes that could be its own.
        whole = base64.b64decode(packed[: len(packed) // 4 * 4])
        for unpack in (bz2.decompress, lambda one: zlib.decompressobj().decompress(one)):
            with contextlib.suppress(OSError, ValueError, zlib.error):
                found.append(unpack(whole))
    return found


def fused(graph: beam_runner_api_pb2.Pipeline) -> list[frozenset[str]]:
    """The stages that Beam's portable fuser makes of a graph, each as the names of its steps."""
    _, stages = translations.create_and_optimize_stages(
        graph,
        phases=[
            translations.annotate_downstream_side_inputs,
            translations.lift_combiners,
            translations.expand_sdf,
            translations.expand_gbk,
            translations.sink_flattens,
            translations.greedily_fuse,
        ],
        known_runner_urns=frozenset([common_urns.primitives.FLATTEN.urn, common_urns.primitives.GROUP_BY_KEY.urn]),
    )
    return [frozenset(one.unique_name for one in stage.transforms) for stage in stages]
