"""The student's directory, and the parts that a student is made of, at tiny size."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tiny_dual
import torch
from safetensors.torch import load_file, save_file
from tiny_student import (
    QFORMER,
    SIZES,
    assert_same,
    described,
    make_parts,
    read,
    samples,
    scene,
    tiny_student,
)

from model_handlers.settings import Settings
from model_handlers.student_inputs import Sample, StudentInputs
from model_handlers.student_parts import from_parts, load_student
from model_handlers.student_teacher import StudentSettings
from model_handlers.weights import WeightsError

pytestmark = pytest.mark.usefixtures("one_thread")

LITE = "efficientnet-lite0"


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> pathlib.Path:
    """A folder of tiny parts, the language models of which have learned nothing."""
    return make_parts(tmp_path_factory.mktemp("parts"), steps=0)


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


def test_a_student_and_its_frozen_parts_may_be_moved_together_but_not_apart(parts, tmp_path):
    shutil.copytree(parts / "llm", tmp_path / "here" / "llm")
    student, inputs = tiny_student(tmp_path / "here" / "llm", LITE, save_frozen=False)
    student.save_pretrained(tmp_path / "here" / "v1")
    inputs.save(tmp_path / "here" / "v1")
    assert str(tmp_path) not in (tmp_path / "here" / "v1" / "config.json").read_text()
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there" / "v1"
    student.config.references["language"]["weights"] = str(tmp_path / "there" / "llm")
    assert_same(student, type(student).from_pretrained(moved))
    StudentSettings(str(moved)).checked()
    (tmp_path / "there" / "llm").rename(tmp_path / "llm")
    told = f"v1 holds only what was trained; its language model is at {tmp_path}/there/llm, which is not there; put"
    with pytest.raises(WeightsError, match=told):
        type(student).from_pretrained(moved)
    with pytest.raises(WeightsError, match=told):
        StudentSettings(str(moved)).checked()


def test_code_that_a_configuration_names_is_never_run_nor_asked_about(untrained, tmp_path, monkeypatch):
    student, inputs = untrained
    student.save_pretrained(tmp_path)
    inputs.save(tmp_path)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = json.loads((tmp_path / "config.json").read_text())
    theirs = {name: f"{tmp_path}--theirs.Model" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
    # A type that Transformers has no language model of, so that code is the only way.
    config["text_config"] = {"model_type": "clip_text_model", "hidden_size": 48, "auto_map": theirs}
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": theirs}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(WeightsError, match="can't be loaded as AutoModel"):
        load_student(Settings(str(tmp_path)), "float32")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("missing", "lacks 1 tensors of AutoModel, such as video_projection.weight"),
        ("cut", r"is not whole \(.*\); copy it again"),
        ("pickled", "can't be loaded as AutoModel: Error no file named model.safetensors"),
    ],
)
def test_a_student_to_go_on_from_has_all_its_weights_and_has_them_as_safetensors(untrained, tmp_path, harm, told):
    untrained[0].save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    if harm == "missing":
        del tensors["video_projection.weight"]
        save_file(tensors, file, {"format": "pt"})
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        torch.save(tensors, tmp_path / "pytorch_model.bin")
        file.unlink()
    with pytest.raises(WeightsError, match=told):
        load_student(Settings(str(tmp_path)), "float32")


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


def test_language_models_that_do_not_write_from_left_to_right_are_refused(parts, tmp_path):
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    t5 = transformers.T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, vocab_size=32)
    transformers.T5ForConditionalGeneration(t5).save_pretrained(tmp_path / "t5")
    transformers.RobertaForMaskedLM(transformers.RobertaConfig(**sizes)).save_pretrained(tmp_path / "roberta")
    told = "; name one that goes on writing behind what it reads, such as a Llama or a Qwen"
    kinds = {"t5": "t5, no causal language model", "roberta": "roberta that sees the words after each"}
    for name, kind in kinds.items():
        with pytest.raises(WeightsError, match=f"{name} is a {kind}{told}"):
            from_parts(llm=Settings(str(tmp_path / name)), vision=Settings(LITE))


def test_the_encoder_may_be_a_classifier_but_none_that_hides_parts_of_a_picture(parts, tmp_path):
    import transformers

    sizes = {"image_size": 28, "patch_size": 14, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = {
        "classifier": transformers.ViTForImageClassification(transformers.ViTConfig(**sizes)),
        "mae": transformers.ViTMAEModel(transformers.ViTMAEConfig(**sizes)),
    }
    for name, model in made.items():
        model.save_pretrained(tmp_path / name)
        transformers.ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path / name)
    student, inputs = tiny_student(parts / "llm", tmp_path / "classifier")
    pixels = read(inputs)["pixel_values"]
    with torch.no_grad():
        seen = made["classifier"].eval().vit(pixels.flatten(0, 1)).last_hidden_state.unflatten(0, pixels.shape[:2])
    assert torch.allclose(student.encode_frames(pixels), seen, atol=1e-6)
    with pytest.raises(WeightsError, match="mae is a vit_mae, which hides parts of a picture at random; name an"):
        tiny_student(parts / "llm", tmp_path / "mae")


def test_the_lite_encoder_leaves_torch_its_threads(monkeypatch):
    from model_handlers.student_parts import _lite

    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    _lite()
    assert counts == []


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
