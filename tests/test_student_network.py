"""The student captioner: what is frozen, what flows where, and what it learns at tiny size."""

import pathlib

import pytest
import torch
from tiny_student import (
    PLACES,
    QUERIES,
    assert_same,
    described,
    learn,
    learned,
    make_parts,
    read,
    samples,
    tiny_student,
)

from model_handlers.student_inputs import Sample, Texts

pytestmark = pytest.mark.usefixtures("one_thread")

LITE = "efficientnet-lite0"


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> pathlib.Path:
    """A folder of tiny parts: `llm` (a Llama that has learned), `gpt2`, `opt`, `tower` (CLIP), `blip2`."""
    return make_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def untrained(parts):
    """A student nobody trains, with its inputs; tests must not change it."""
    return tiny_student(parts / "llm", parts / "tower")


@pytest.fixture(scope="module")
def trained(parts):
    """A student that has memorised eight scenes, the loss in the end, its inputs, and the batch."""
    student, inputs = tiny_student(parts / "llm", parts / "tower")
    batch = inputs.batch(samples())
    return student, learn(student, batch), inputs, batch


# ---- shapes


def test_as_many_tokens_stand_before_a_caption_with_text_as_without(untrained):
    student, inputs = untrained
    batch = read(inputs)
    with torch.no_grad():
        told = student.prefix(batch["pixel_values"], text_ids=batch["text_ids"], text_mask=batch["text_mask"])
        untold = student.prefix(batch["pixel_values"])
    # The opening token, the text's and the video's.
    assert student.config.prefix == 1 + 2 * QUERIES
    assert told.shape == untold.shape == (3, 1 + 2 * QUERIES, 48)
    assert torch.equal(told[:, 0], student.get_input_embeddings()(torch.ones(3, dtype=torch.long) * 0))
    # The third clip has no text in either.
    assert torch.allclose(told[2], untold[2], atol=1e-5)
    changed = (told - untold)[:, 1 : 1 + QUERIES].abs().amax(dim=(1, 2)).tolist()
    assert [change > 1e-4 for change in changed] == [True, True, False]
    assert torch.allclose(told[:, 1 + QUERIES :], untold[:, 1 + QUERIES :], atol=1e-6)


def test_logits_stand_at_their_labels_and_the_loss_is_their_mean_cross_entropy(untrained):
    student, inputs = untrained
    batch = read(inputs)
    with torch.no_grad():
        out = student(**batch)
        summed = student(**batch, num_items_in_batch=7).loss
        first = student(**described(batch))
    labels = batch["labels"]
    assert out.logits.shape == (*labels.shape, len(inputs.tokenizer))
    expected = torch.nn.functional.cross_entropy(out.logits[labels != -100], labels[labels != -100])
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert summed.item() == pytest.approx(out.loss.item() * (labels != -100).sum().item() / 7, rel=1e-5)
    assert first.loss is None
    assert torch.allclose(first.logits[:, 0], out.logits[:, 0], atol=1e-5)


def test_features_stand_in_for_pixels(untrained):
    student, inputs = untrained
    batch = read(inputs)
    features = student.encode_frames(batch["pixel_values"])
    assert features.shape == (3, 4, 1 + (28 // 14) ** 2, 32)
    with torch.no_grad():
        seen = student(**batch).loss
        batch.pop("pixel_values")
        assert student(features=features, **batch).loss.item() == seen.item()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"features": torch.zeros(1, 33, 5, 32)}, "a clip has 33 frames, but there are positions for 32"),
        ({"text_ids": torch.zeros(1, 49, dtype=torch.long)}, "a text has 49 tokens; at most 48 fit"),
        ({"features": None}, "the student needs pixel_values, or the features that encode_frames made of them"),
    ],
)
def test_what_does_not_fit_is_told_with_the_limit(untrained, change, told):
    with pytest.raises(ValueError, match=told):
        untrained[0].prefix(**{"features": torch.zeros(1, 4, 5, 32), **change})


# ---- frozen parts and gradients


def test_only_the_branches_are_trained_and_the_frozen_parts_stay_in_evaluation(parts):
    student, inputs = tiny_student(parts / "llm", parts / "tower")
    student.train()
    student(**read(inputs)).loss.backward()
    graded = {name.split(".")[0] for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert graded == {
        *("states_norm", "frame_queries", "qformer", "frame_positions", "video_queries", "video_qformer"),
        *("video_projection", "no_text", "text_norm", "text_positions", "text_qformer", "text_projection"),
    }
    assert {name.split(".")[0] for name, module in student.named_modules() if not module.training} == {
        "vision",
        "language",
    }
    assert [name for name, parameter in student.named_parameters() if parameter.requires_grad] == [
        name for name, _ in student.named_parameters() if not name.startswith(("vision.", "language."))
    ]


def test_the_text_branch_sends_no_gradient_to_the_video_branch(untrained):
    student, inputs = untrained
    features = student.encode_frames(read(inputs)["pixel_values"])
    batch = read(inputs)
    video = student.read_video(features)
    text = student.read_text(video, batch["text_ids"], batch["text_mask"])
    text.sum().backward()
    graded = {name.split(".")[0] for name, parameter in student.named_parameters() if parameter.grad is not None}
    student.zero_grad(set_to_none=True)
    assert graded == {"no_text", "text_norm", "text_positions", "text_qformer"}


def test_adapters_change_nothing_until_trained_and_are_the_only_part_of_the_language_model_that_is(parts, tmp_path):
    lora = {"r": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]}
    bare, inputs = tiny_student(parts / "llm", parts / "tower")
    student, _ = tiny_student(parts / "llm", parts / "tower", lora=lora)
    batch = read(inputs)
    student.load_state_dict(learned(bare), strict=False)
    with torch.no_grad():
        assert student(**batch).loss.item() == pytest.approx(bare(**batch).loss.item(), abs=1e-6)
    student.train()
    student(**batch).loss.backward()
    adapted = [name for name, parameter in student.language.named_parameters() if parameter.grad is not None]
    # Two layers, two matrices each, two adapters a matrix.
    assert (len(adapted), {name.split(".")[-3] for name in adapted}) == (8, {"lora_A", "lora_B"})
    student.save_pretrained(tmp_path)
    assert_same(student, type(student).from_pretrained(tmp_path))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_adapters_are_trained_in_float32_whatever_the_language_model_is_kept_in(parts, tmp_path, dtype):
    lora = {"r": 2, "alpha": 4, "targets": "all-linear"}
    student, _ = tiny_student(parts / "llm", parts / "tower", dtype=dtype, lora=lora, save_frozen=False)
    assert {one.dtype for one in learned(student).values()} == {torch.float32}
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    student.save_pretrained(tmp_path)
    assert_same(student, type(student).from_pretrained(tmp_path, dtype=getattr(torch, dtype)))


# Transformers 6 will know it by another name alone.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", ["llm", "gpt2", "opt"])
def test_recomputing_activations_changes_no_gradient(parts, kind):
    student, inputs = tiny_student(parts / kind, parts / "tower")
    batch = read(inputs)

    def gradients():
        student.train()
        student.zero_grad(set_to_none=True)
        student(**batch).loss.backward()
        return {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}

    once = gradients()
    student.gradient_checkpointing_enable()
    language = [module for module in student.language.modules() if getattr(module, "gradient_checkpointing", False)]
    again = gradients()
    student.gradient_checkpointing_disable()
    # GPT-2 and OPT drop out a tenth where they are trained; gradients would differ.
    assert len(language) >= 2
    assert once.keys() == again.keys()
    assert max(float((once[name] - again[name]).abs().max()) for name in once) < 1e-6
    assert [module.training for module in student.language.modules() if module.training] == []


def test_bfloat16_language_models_are_trained_through_in_mixed_precision(parts, tmp_path):
    student, inputs = tiny_student(parts / "llm", parts / "tower", dtype="bfloat16")
    dtypes = {name.split(".")[0]: parameter.dtype for name, parameter in student.named_parameters()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.bfloat16} == {"vision", "language"}
    exact, _ = tiny_student(parts / "llm", parts / "tower")
    exact.load_state_dict(learned(student), strict=False)
    batch = read(inputs)
    student.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = student(**batch).loss
    loss.backward()
    assert student.video_projection.weight.grad.dtype == torch.float32
    assert loss.item() == pytest.approx(exact(**batch).loss.item(), rel=0.02)
    student.save_pretrained(tmp_path)
    other = type(student).from_pretrained(tmp_path)
    assert_same(student, other)
    # Without autocast as well: what is trained computes in float32, the rest in bfloat16.
    student.eval()
    assert torch.equal(student.generate(**described(batch)), other.generate(**described(batch)))


# ---- captions


def test_eight_scenes_are_memorised_light_changes_and_all(trained):
    student, loss, inputs, batch = trained
    said = inputs.words(student.generate(**described(batch)))
    assert said == [sample.caption for sample in samples()]
    assert loss < 0.1


@pytest.mark.parametrize("search", [{}, {"num_beams": 3}])
def test_a_clip_is_captioned_alike_alone_and_among_others(trained, search):
    student, _, inputs, _ = trained
    batch = described(read(inputs, 4))
    # The texts are of different lengths, and the captions end at different tokens.
    together = inputs.words(student.generate(**batch, **search))
    alone = []
    for row in range(4):
        length = int(batch["text_mask"][row].sum())
        cut = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        cut |= {name: cut[name][:, :length] for name in ("text_ids", "text_mask")}
        alone += inputs.words(student.generate(**cut, **search))
    assert alone == together


def test_text_tells_scenes_apart_that_look_the_same_and_its_loss_breaks_nothing(parts):
    student, inputs = tiny_student(parts / "llm", parts / "tower")
    rows = [row for row in samples(PLACES) if row.caption.startswith("the red wall dims")]
    batch, bare = inputs.batch(rows), inputs.batch([Sample(row.frames, Texts(), row.caption) for row in rows])
    both = {name: torch.cat([batch[name], bare[name]]) for name in ("pixel_values", "labels")}
    both["text_ids"] = torch.cat([batch["text_ids"], torch.zeros_like(batch["text_ids"])])
    both["text_mask"] = torch.cat([batch["text_mask"], torch.zeros_like(batch["text_mask"])])
    learn(student, both, steps=90)
    told = inputs.words(student.generate(**described(batch)))
    assert told == [row.caption for row in rows]
    untold = inputs.words(student.generate(**described(bare)))
    # Without text the place is a guess, and the rest of the caption stands.
    assert [said.split(" in ")[0] for said in untold] == [row.caption.split(" in ")[0] for row in rows]
