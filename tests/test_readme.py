"""The README's section on adding a teacher, followed to the letter."""

import importlib
import io
import pathlib
import re
import sys

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from fakes import make_clip
from PIL import Image

from beam_pipeline.config import load_config
from beam_pipeline.pipeline import teacher_of
from model_handlers import catalogue
from transforms.captioning import CaptionClips
from transforms.reel import ReelFrame, ReelWriter

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """Do as the section says, in a folder of the test's own."""
    section = README.read_text("utf-8").partition("## Add a teacher")[2].partition("\n## ")[0]
    module, entry = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "brightness.py").write_text(module)
    package = importlib.import_module("model_handlers")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(catalogue, "TEACHERS", dict(catalogue.TEACHERS))
    exec(compile(entry, "README.md", "exec"), vars(catalogue))
    yield re.search(r"`(teachers: \[.*?\])`", section).group(1)
    sys.modules.pop("model_handlers.brightness", None)
    vars(catalogue).pop("BrightnessTeacher", None)


def make_reel(path, grey: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 36), (grey, grey, grey)).save(buffer, "JPEG")
    with ReelWriter(str(path), etag="1", settings="s") as reel:
        for n in range(40):
            reel.add(ReelFrame(time_s=n / 2, frame=n, shot=0, jpeg=buffer.getvalue()))
        reel.finish({})
    return str(path)


def test_the_readmes_teacher_can_be_added_by_following_it(followed, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"extends: lite\n{followed}\n")
    config = load_config(file=str(tmp_path / "mine.yaml"))
    assert [teacher.name for teacher in config.teachers][-1] == "brightness"
    clips = [
        make_clip(0, reel=make_reel(tmp_path / "dark.arrow", 30)),
        make_clip(1, reel=make_reel(tmp_path / "bright.arrow", 220)),
        make_clip(2, reel=str(tmp_path / "gone.arrow")),
    ]
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        captioned = pipeline | beam.Create(clips) | CaptionClips([teacher_of(config.teachers[-1], config)])
        told = captioned | beam.Map(
            lambda one: (one.clip.clip_id, [c.text for c in one.candidates], [d.error_class for d in one.dead_letters])
        )
        expected = [
            ("v-0", ["The scene is dark."], []),
            ("v-1", ["The scene is bright."], []),
            ("v-2", [], ["ReelError"]),
        ]
        assert_that(told, equal_to(expected))
