"""What follows from a processor and a chat template: templates of every kind, old checkpoints, times of frames."""

import json
import shutil

import chat_asking
import numpy as np
import pytest
from chat_asking import captions, teacher
from lite_media import clip_of, write_reel
from tiny_words import CAPTIONS, COLOURS

from model_handlers.chat_forms import chat_form, context_of, metadata_of, takes_system, video_of
from model_handlers.frames import ClipFrames
from model_handlers.prompts import Asked
from model_handlers.weights import WeightsError

checkpoint = chat_asking.checkpoint


def test_a_checkpoint_without_a_chat_template_is_refused_in_one_line(checkpoint, tmp_path):
    shutil.copytree(checkpoint("qwen2.5-vl"), tmp_path / "base")
    (tmp_path / "base/chat_template.jinja").unlink()
    with pytest.raises(WeightsError, match="qwen2_5_vl checkpoint has no chat template; name an instruct checkpoint"):
        teacher(str(tmp_path / "base")).load()


def test_a_template_that_shows_no_pictures_is_refused_in_one_line(checkpoint, tmp_path):
    shutil.copytree(checkpoint("qwen2.5-vl"), tmp_path / "blind")
    (tmp_path / "blind/chat_template.jinja").write_text("{% for message in messages %}Hello.{% endfor %}")
    with pytest.raises(WeightsError, match="qwen2_5_vl checkpoint shows neither video nor images"):
        teacher(str(tmp_path / "blind")).load()


def as_first_published(weights, folder, processor_class, image_processor_type):
    """A copy of a checkpoint in the files of 2024: no template, nothing of how many tokens a picture takes."""
    shutil.copytree(weights, folder)
    pictures = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    pictures |= {"processor_class": processor_class, "image_processor_type": image_processor_type}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    for later in ("processor_config.json", "chat_template.jinja"):
        (folder / later).unlink(missing_ok=True)
    return str(folder)


@pytest.mark.parametrize(
    ("family", "processor", "pictures"),
    [
        ("video-llava", "VideoLlavaProcessor", "VideoLlavaImageProcessor"),
        # A class that is gone, and one whose video processor is mistaken for the processor itself.
        ("llava-next-video", "LlavaNextVideoProcessor", "LlavaNextVideoImageProcessor"),
        ("llava-next-video", "LlavaNextVideoProcessor", "LlavaNextImageProcessor"),
    ],
)
def test_the_first_checkpoints_of_the_llavas_can_be_used(family, processor, pictures, checkpoint, tmp_path):
    weights = as_first_published(checkpoint(family), tmp_path / "old", processor, pictures)
    reel = write_reel(tmp_path / "red.arrow", [np.full((72, 128, 3), COLOURS[0], np.uint8)] * 8)
    for frames in (4, 1):
        assert captions(teacher(weights, frames=frames), [clip_of(reel, 8)]) == [CAPTIONS[0]]


def test_what_a_processor_assumes_of_the_vision_tower_gives_way_to_the_models_configuration(checkpoint):
    from transformers import AutoConfig, AutoProcessor

    folder = checkpoint("llava-next-video")
    processor = AutoProcessor.from_pretrained(folder)
    processor.patch_size = processor.vision_feature_select_strategy = processor.num_additional_image_tokens = None
    form = chat_form(processor, AutoConfig.from_pretrained(folder), 4)
    learnt = (form.processor.patch_size, form.processor.vision_feature_select_strategy)
    assert (*learnt, form.processor.num_additional_image_tokens) == (8, "default", 1)


class Speaker:
    """A processor reduced to its template."""

    def __init__(self, chat_template):
        self.chat_template = chat_template

    def apply_chat_template(self, messages, chat_template, tokenize, add_generation_prompt):
        import jinja2

        def refuse(reason):
            raise jinja2.TemplateError(reason)

        return jinja2.Template(self.chat_template).render(messages=messages, raise_exception=refuse)


@pytest.mark.parametrize(
    ("template", "takes"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}", True),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", False),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}", False),
        ("{{ messages[0].content + 1 }}", False),
    ],
    ids=["shows it", "drops it", "refuses it", "cannot add it"],
)
def test_templates_that_take_a_system_message_are_told_from_those_that_do_not(template, takes):
    assert takes_system(Speaker(template), ()) is takes


def test_a_template_that_drops_the_system_message_gets_its_words_in_the_request(checkpoint):
    from transformers import AutoConfig, AutoProcessor

    folder = checkpoint("llava-onevision")
    processor = AutoProcessor.from_pretrained(folder)
    processor.chat_template = processor.chat_template.replace(
        "{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}"
    )
    form = chat_form(processor, AutoConfig.from_pretrained(folder), 4)
    chat = form.rendered(Asked("", "Be brief.", "What is it?", 0), 4)
    assert chat == "<|im_start|>user <video>\nBe brief.\n\nWhat is it?<|im_end|><|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("times", "duration_s", "indices", "total"),
    [
        ([0.5, 1.5, 2.5, 3.5], 4.0, [500, 1500, 2500, 3500], 4000),
        ([0.0, 0.04], 0.04, [0, 40], 41),
        ([1 / 3], 2.0, [333], 2000),
    ],
)
def test_times_of_frames_are_told_to_a_thousandth_of_a_second(times, duration_s, indices, total):
    told = metadata_of(ClipFrames([np.zeros((2, 2, 3), np.uint8)] * len(times), times), duration_s)
    assert told == {
        "fps": 1000.0,
        "duration": duration_s,
        "total_num_frames": total,
        "frames_indices": indices,
    }


def test_a_video_has_frames_of_one_size_and_two_at_least():
    grey, wide = np.full((40, 60, 3), 90, np.uint8), np.full((40, 80, 3), 90, np.uint8)
    assert [frame.shape for frame in video_of(ClipFrames([grey, wide], [0.0, 1.0])).frames] == [(40, 60, 3)] * 2
    assert video_of(ClipFrames([grey, wide], [0.0, 1.0])).frames[1].tolist() == grey.tolist()
    assert video_of(ClipFrames([grey], [0.4])).times == [0.4, 0.4]


class Scaled:
    max_position_embeddings = 4096
    rope_parameters: dict = {"rope_type": "linear", "factor": 2.0}  # noqa: RUF012


class Plain(Scaled):
    rope_parameters: dict = {"rope_type": "default", "rope_theta": 1e6}  # noqa: RUF012


@pytest.mark.parametrize(("config", "tokens"), [(Scaled(), 8192), (Plain(), 4096), (object(), None)])
def test_the_context_follows_from_the_decoders_configuration(config, tokens):
    assert context_of(config) == tokens
