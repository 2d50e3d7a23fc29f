"""Where models stand: hints in the graph, teachers that take turns, copies of a machine. No caption changes with it."""

import os
import re

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from conftest import ROOT
from fakes import EchoTeacher, make_clip

from beam_pipeline.config import ConfigError, load_config
from beam_pipeline.pipeline import CurateVideos, placed, teachers_of
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.taking_turns import TakeTurns
from transforms.captioning import CaptionClips, Teacher, Together
from transforms.inference import infer

pytest.importorskip("torch")

L4, H100 = "type:nvidia-l4;count:1;install-nvidia-driver", "type:nvidia-h100-80gb;count:1;install-nvidia-driver"
MACHINE = ["--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


def config_of(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_config(str(path))


class Seeing:
    """Says its name, the clip's id and the process it is in; cannot see the seventh clip."""

    def __init__(self, name):
        self.name = name

    def prepare(self, request):
        return request.clip_id

    def forward(self, prepared):
        return Raw([f"{self.name} sees {clip_id}" for clip_id in prepared])

    def finish(self, request, raw):
        if request.clip_id == "v-7":
            raise ValueError("too dark")
        return raw


class SeeingTeacher(ResidentHandler):
    def network(self, device):
        return Seeing(self.name)


def seeing(name):
    return SeeingTeacher(name, Settings("none", max_batch=5))


def test_teachers_that_take_turns_say_what_they_say_apart():
    clips = [make_clip(n, subtitles="Hi." if n % 2 else None) for n in range(12)]
    alone = [Teacher(name, seeing(name), needs_text=name == "b") for name in "abc"]
    alone.append(Teacher("d", EchoTeacher("d")))
    turns = TakeTurns({name: seeing(name) for name in "abc"}, at_once=1, per_turn=4)
    told = []
    for together in (None, Together(frozenset("abc"), turns)):
        expected = [
            (
                clip.clip_id,
                [(name, f"{name} sees {clip.clip_id}") for name in "abcd" if said(name, clip)],
                ["b"] if clip.subtitles is None else [],
                [(name, "too dark") for name in "abc"] if clip.clip_id == "v-7" else [],
            )
            for clip in clips
        ]
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            captioned = pipeline | beam.Create(clips) | CaptionClips(alone, together) | beam.Map(shown)
            assert_that(captioned, equal_to(expected))
        told.append(expected)
    assert told[0] == told[1]


def said(name, clip):
    if name == "d":
        return True
    return clip.clip_id != "v-7" and not (name == "b" and clip.subtitles is None)


def shown(captioned):
    return (
        captioned.clip.clip_id,
        [(one.teacher, one.text) for one in captioned.candidates],
        list(captioned.not_applicable),
        [(one.teacher, one.message) for one in captioned.dead_letters],
    )


class WhereTeacher(ResidentHandler):
    def network(self, device):
        return Where()


class Where:
    def prepare(self, request):
        return request

    def forward(self, prepared):
        return Raw([os.getpid() for _ in prepared])

    def finish(self, request, raw):
        return raw


def test_the_processes_of_a_machine_share_the_copies_of_a_model(tmp_path, monkeypatch):
    # The runner starts its workers anew, and they look for this module.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    handler = WhereTeacher("where", Settings("none", max_batch=2)).shared_by_machine(copies=2)
    assert (handler.share_model_across_processes(), handler.model_copies()) == (True, 2)
    told = str(tmp_path / "told")
    with beam.Pipeline(options=PipelineOptions(MACHINE)) as pipeline:
        answers = pipeline | beam.Create(range(40)) | beam.Reshuffle() | infer(handler)
        lines = answers | beam.Map(lambda one: f"{one.request} {one.answer} {os.getpid()}")
        _ = lines | beam.io.WriteToText(told, num_shards=1)
    lines = [line.split() for path in tmp_path.glob("told*") for line in path.read_text().splitlines()]
    assert sorted(int(request) for request, _, _ in lines) == list(range(40))
    assert len({model for _, model, _ in lines}) == 1


def test_two_shared_models_are_never_taken_for_each_other():
    one, other = seeing("a").shared_by_machine(), seeing("b").shared_by_machine()
    clips = [make_clip(n) for n in range(4)]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        created = pipeline | beam.Create(clips)
        told = [created | name >> infer(handler) for name, handler in (("one", one), ("other", other))]
        answers = told | beam.Flatten() | beam.Map(lambda outcome: outcome.answer)
        assert_that(answers, equal_to([f"{name} sees {clip.clip_id}" for name in "ab" for clip in clips]))


def hints_in(pipeline):
    """{name of a step: its accelerator} of all steps that run a model."""
    components = pipeline.to_runner_api().components
    found = {}
    for transform in components.transforms.values():
        steps = transform.unique_name.split("/")
        if steps[-1] == "BeamML_RunInference" and transform.spec.urn == "beam:transform:pardo:v1":
            hints = components.environments[transform.environment_id].resource_hints
            step = next(step for step in reversed(steps[:-2]))
            found[step] = hints.get("beam:resources:accelerator:v1", b"").decode()
    return found


def test_each_model_has_workers_of_its_own_and_what_computes_on_the_cpu_gets_no_gpu(tmp_path):
    config = config_of(
        tmp_path,
        f"""
extends: lite
selector: siglip2-base
teachers:
  - lite-frame
  - git-base
  - {{name: blip-base, accelerator: "{H100}"}}
  - {{name: endpoint, url: "http://localhost:1/v1", weights: some-model}}
hygiene: {{language: true}}
placement: {{accelerator: "{L4}"}}
""",
    )
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | beam.Create([]) | CurateVideos(config, str(tmp_path / "dataset"), "run-1")
    assert hints_in(pipeline) == {
        "Embed shots": "",
        "Ask lite-frame": "",
        "Ask git-base": L4,
        "Ask blip-base": H100,
        "Ask endpoint": "",
        "Judge captions": L4,
        "Language": "",
    }


@pytest.mark.parametrize(
    "said, told",
    [
        ("workers: like", "workers must be fitted or alike, not 'like'"),
        ("decode_min_ram: much", "decode_min_ram must be like 30GB, not 'much'"),
        (
            "workers: alike, min_ram: 30GB",
            "min_ram is for workers: fitted; of workers that are alike say --machine_type",
        ),
        ("workers: alike, decode_min_ram: 16GB", "decode_min_ram is for workers: fitted"),
    ],
)
def test_a_placement_that_cannot_be_meant_is_refused(tmp_path, said, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        config_of(tmp_path, f"extends: lite\nplacement: {{{said}}}")


def test_teachers_together_share_a_stage_and_the_lite_ones_stay_apart(tmp_path):
    config = config_of(
        tmp_path,
        """
extends: lite
teachers: [lite-frame, blip-base, git-base]
placement: {teachers: together, models_at_once: 1, clips_per_turn: 100}
""",
    )
    teachers, together = teachers_of(config)
    assert [teacher.name for teacher in teachers] == ["lite-frame", "blip-base", "git-base"]
    assert together.names == {"blip-base", "git-base"}
    assert together.handler.batch_elements_kwargs() == {"min_batch_size": 200, "max_batch_size": 200}


def test_placement_changes_no_fingerprint(tmp_path):
    plain = config_of(tmp_path, "extends: small")
    where = f'{{one_copy_per: machine, gpus: 2, accelerator: "{L4}", decode_min_ram: 16GB}}'
    moved = config_of(tmp_path, f"extends: small\nplacement: {where}")
    assert plain.fingerprint() == moved.fingerprint()
    handler, hints = placed(moved.selector, moved)
    assert (handler.model_copies(), hints) == (2, {"accelerator": L4})
