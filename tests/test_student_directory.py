"""The student's directory, and the parts that a student is made of, at tiny size."""

import pathlib

import numpy as np
import pytest
import tiny_dual
import torch
from safetensors.torch import load_file
from tiny_student import (
    QFORMER,
    SIZES,
    assert_same,
    described,
    make_blip2,
    make_llm,
    make_tower,
    read,
    samples,
    scene,
    tiny_student,
)

from model_handlers.settings import Settings
from model_handlers.student_inputs import Sample, StudentInputs
from model_handlers.student_parts import from_parts
from model_handlers.weights import WeightsError

LITE = "efficientnet-lite0"


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    # Of two threads on busy cores each waits for the other at every small matrix.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> pathlib.Path:
    """A folder of tiny parts, the language models of which have learned nothing."""
    folder = tmp_path_factory.mktemp("parts")
    for kind in ("llama", "gpt2", "opt"):
        make_llm(folder / {"llama": "llm"}.get(kind, kind), kind, steps=0)
    make_tower(folder / "tower")
    make_blip2(folder / "blip2")
    return folder


@pytest.fixture(scope="module")
def untrained(parts):
    """A student nobody trains, with its inputs; tests must not change it."""
    return tiny_student(parts / "llm", parts / "tower")


def test_the_directory_alone_is_loaded_by_automodel_and_says_the_same(untrained, tmp_path):
    from transformers import AutoModel

    from model_handlers.student_network import register

    student, inputs = untrained
    batch = inputs.batch(samples())
    student.save_pretrained(tmp_path)
    inputs.save(tmp_path)
    register()
    register()
    other, read_again = AutoModel.from_pretrained(tmp_path), StudentInputs.load(tmp_path)
    assert_same(student, other)
    assert not other.training
    again = read_again.batch(samples())
    assert {name: torch.equal(batch[name], again[name]) for name in batch} == dict.fromkeys(batch, True)
    with torch.no_grad():
        assert torch.equal(student(**batch).logits, other(**again).logits)


def test_a_directory_that_refers_to_its_frozen_parts_holds_none_of_them(parts, tmp_path):
    student, inputs = tiny_student(parts / "llm", parts / "tower", save_frozen=False)
    student.save_pretrained(tmp_path)
    held = {name.split(".")[0] for name in load_file(tmp_path / "model.safetensors")}
    assert held & {"vision", "language"} == set()
    other = type(student).from_pretrained(tmp_path)
    assert_same(student, other)
    batch = described(read(inputs))
    assert torch.equal(student.generate(**batch, max_new_tokens=8), other.generate(**batch, max_new_tokens=8))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_language_models_with_one_matrix_for_reading_and_writing_come_back_the_same(parts, tmp_path, kind, whole):
    student, inputs = tiny_student(parts / kind, parts / "tower", save_frozen=whole)
    student.save_pretrained(tmp_path)
    other = type(student).from_pretrained(tmp_path)
    assert_same(student, other)
    batch = described(read(inputs))
    assert torch.equal(student.generate(**batch, max_new_tokens=4), other.generate(**batch, max_new_tokens=4))


def test_a_frozen_part_that_moved_is_named_and_one_that_changed_is_refused(parts, tmp_path):
    student, _ = tiny_student(parts / "llm", parts / "tower", save_frozen=False)
    student.save_pretrained(tmp_path / "student")
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (parts / "llm").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert_same(student, type(student).from_pretrained(tmp_path / "student", parts={"language": moved}))
    with pytest.raises(WeightsError, match=r"gpt2 is sha256 .*, but this student was trained with sha256 .*parts="):
        type(student).from_pretrained(tmp_path / "student", parts={"language": parts / "gpt2"})


def test_a_student_out_of_nowhere_cannot_leave_its_frozen_parts_out(untrained, tmp_path):
    student, _ = untrained
    student.config.save_frozen, kept = False, student.config.references
    student.config.references = None
    try:
        with pytest.raises(ValueError, match="nothing says where vision, language came from; use from_parts"):
            student.save_pretrained(tmp_path)
    finally:
        student.config.save_frozen, student.config.references = True, kept


# ---- parts


def test_a_blip2_gives_its_encoder_its_queries_and_its_qformer_which_stays_frozen(parts, tmp_path):
    from transformers import Blip2ForConditionalGeneration

    blip2 = Blip2ForConditionalGeneration.from_pretrained(parts / "blip2")
    settings = {name: SIZES[name] for name in ("video_qformer_config", "text_qformer_config", "max_text_tokens")}
    llm, own = Settings(str(parts / "llm")), Settings(str(parts / "blip2"))
    student = from_parts(llm=llm, qformer=own, frames=4, save_frozen=False, **settings)
    inputs = StudentInputs.from_parts(llm=llm, vision=own, frames=4)
    pixels = inputs.pixels(scene("red", "dims"))
    with torch.no_grad():
        features = student.encode_frames(pixels[None])
        seen = blip2.vision_model(pixels).last_hidden_state
        asked = blip2.qformer(query_embeds=blip2.query_tokens.expand(4, -1, -1), encoder_hidden_states=seen)
        ours = student.qformer(query_embeds=student.frame_queries.expand(4, -1, -1), encoder_hidden_states=features[0])
    assert torch.allclose(features[0], seen, atol=1e-6)
    assert torch.allclose(ours.last_hidden_state, asked.last_hidden_state, atol=1e-5)
    student.train()
    assert {student.qformer.training, student.qformer.layernorm.weight.requires_grad} == {False}
    student.save_pretrained(tmp_path)
    held = {name.split(".")[0] for name in load_file(tmp_path / "model.safetensors")}
    assert held & {"vision", "language", "qformer", "frame_queries"} == set()
    assert_same(student, type(student).from_pretrained(tmp_path))


@pytest.mark.parametrize(
    ("make", "states"), [(tiny_dual.make_clip, 17), (tiny_dual.make_siglip, 16), (tiny_dual.make_dinov2, 17)]
)
def test_the_encoder_may_be_half_of_a_clip_or_a_siglip_or_a_dinov2(parts, tmp_path, make, states):
    make(tmp_path / "encoder")
    student, inputs = tiny_student(parts / "llm", tmp_path / "encoder")
    batch = read(inputs)
    # Squares as its own preparation crops them, whatever the side it was trained at.
    assert batch["pixel_values"].shape == (3, 4, 3, 32, 32)
    assert student.encode_frames(batch["pixel_values"]).shape == (3, 4, states, 32)
    assert student.generate(**described(batch), max_new_tokens=3).shape == (3, 3)
    student.save_pretrained(tmp_path / "student")
    assert_same(student, type(student).from_pretrained(tmp_path / "student"))


def test_a_qformer_that_reads_other_states_is_refused_with_both_widths(parts, tmp_path):
    import transformers

    vision = transformers.Dinov2Config(image_size=28, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    transformers.Dinov2Model(vision).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the Q-Former reads states 32 wide, but the image encoder's are 16 wide"):
        from_parts(
            llm=Settings(str(parts / "llm")),
            vision=Settings(str(tmp_path)),
            qformer=Settings(str(parts / "blip2")),
        )


def test_other_encoders_and_parts_that_cannot_be_meant(parts):
    with pytest.raises(ValueError, match="a student needs an image encoder: name vision, or a BLIP-2 checkpoint"):
        from_parts(llm=Settings(str(parts / "llm")))
    with pytest.raises(WeightsError, match="tower is a clip_vision_model; name a BLIP-2 checkpoint"):
        from_parts(llm=Settings(str(parts / "llm")), qformer=Settings(str(parts / "tower")))


def test_the_lite_encoder_gives_its_map_of_seven_by_seven(parts, tmp_path):
    from model_handlers.vision import load_vision

    frame = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    student, inputs = tiny_student(parts / "llm", LITE)
    with torch.no_grad():
        features = student.encode_frames(inputs.batch([Sample([frame])])["pixel_values"])
    assert features.shape == (1, 4, 49, 1280)
    pooled = load_vision().look_at([frame]).features[0]
    assert np.abs(features[0, 0].mean(0).numpy() - pooled).max() < 1e-4
    student.save_pretrained(tmp_path)
    assert_same(student, type(student).from_pretrained(tmp_path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frames": 33}, r"frames must be 1 to max_frames \(32\), not 33"),
        ({"text_qformer_config": {**QFORMER, "hidden_size": 16}}, "so both must be 32 wide, not 16"),
        ({"queries": 64}, "the language model reads 128 tokens, too few for 128 and a caption"),
        ({"lora": {"r": 2}}, "lora must hold r, alpha and targets, not r"),
    ],
)
def test_configurations_that_do_not_fit_say_why(untrained, change, told):
    from model_handlers.student_config import StudentConfig

    parts_of = {"vision_config": untrained[0].config.vision_config, "text_config": untrained[0].config.text_config}
    with pytest.raises(ValueError, match=told):
        StudentConfig(**{**parts_of, **SIZES, **change})
