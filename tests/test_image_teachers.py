"""Captioners that read no text, on tiny checkpoints of the published classes: what they say, see, count and refuse."""

import dataclasses

import apache_beam as beam
import pytest
import tiny_captioners
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that, equal_to
from lite_media import clip_of, write_reel
from tiny_sentences import SAID, given_to_language, wall

from model_handlers.devices import Device
from model_handlers.frames import clip_frames
from model_handlers.image_teachers import CaptionerTeacher, FlorenceTeacher, florence_task
from model_handlers.settings import Settings
from model_handlers.sighted import Spoken, padded, until_end, without_float16
from model_handlers.weights import WeightsError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CPU = Device("cpu", torch.float32)
FAMILIES = ["blip2_opt", "blip2_t5", "blip", "git", "git_video", "florence2"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny checkpoint, made once."""
    made = {}

    def make(name, **how):
        key = (name, *how.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp(name)
            getattr(tiny_captioners, f"make_{name}")(made[key], **how)
        return made[key]

    return make


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight clips of plain colours, in pictures of several sizes, of three frames or seven."""
    folder = tmp_path_factory.mktemp("reels")
    made = []
    for number, colour in enumerate([*SAID, *SAID]):
        count = 7 if number % 2 else 3
        frames = [wall(colour, 64 + 16 * number, 48 + 8 * (number % 3))] * count
        made.append(clip_of(write_reel(folder / f"{number}.arrow", frames), count, f"clip-{number}"))
    return made


def teacher(name, folder, **changes):
    kind = FlorenceTeacher if name == "florence2" else CaptionerTeacher
    return kind(name, Settings(str(folder), **{"frames": 6 if name == "git_video" else 1, **changes}))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_clip_gets_its_own_caption_and_a_missing_reel_costs_itself(name, tiny, clips):
    missing = dataclasses.replace(clips[0], clip_id="clip-missing", reel="/no/such.arrow")
    expected = [(clip.clip_id, said, None) for clip, said in zip(clips, [*SAID.values()] * 2, strict=True)]
    expected.append(("clip-missing", None, "ReelError"))
    with beam.Pipeline("FnApiRunner") as pipeline:
        told = (
            pipeline
            | beam.Create([*clips[:3], missing, *clips[3:]], reshuffle=False)
            | RunInference(teacher(name, tiny(name)))
            | beam.Map(lambda one: (one.request.clip_id, one.answer, one.failure and one.failure.error_class))
        )
        assert_that(told, equal_to(expected))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_caption_and_its_tokens_do_not_depend_on_the_batch(name, tiny, clips):
    network = teacher(name, tiny(name)).network(CPU)
    with torch.inference_mode():
        prepared = [network.prepare(clip) for clip in clips]
        together = network.forward(prepared)
        alone = [network.forward([one]) for one in prepared]
    assert together.values == [one.values[0] for one in alone]
    assert together.tokens == sum(one.tokens for one in alone)


def test_tokens_are_those_of_the_sentence_with_its_end_and_no_padding(tiny, clips):
    network = teacher("blip2_t5", tiny("blip2_t5")).network(CPU)
    with torch.inference_mode():
        raw = network.forward([network.prepare(clip) for clip in clips[:4]])
    assert raw.tokens == sum(len(said.split()) + 1 for said in SAID.values())


@pytest.mark.parametrize(
    ("name", "said"), [("blip2_opt", "red walls"), ("blip2_t5", "red walls"), ("git", "red walls")]
)
def test_an_answer_ends_at_its_limit_of_tokens(name, said, tiny, clips):
    network = teacher(name, tiny(name), max_new_tokens=2).network(CPU)
    with torch.inference_mode():
        raw = network.forward([network.prepare(clips[0])])
    assert (raw.values, raw.tokens) == ([said], 2)


@pytest.mark.parametrize(("name", "opening"), [("blip2_opt", 2), ("blip2_t5", 1)])
def test_blip2_reads_what_transformers_own_way_hands_to_the_language_model(name, opening, tiny, clips):
    from transformers import AutoProcessor

    network = teacher(name, tiny(name)).network(CPU)
    ours, said = given_to_language(network.model, lambda: network.forward([network.prepare(clips[1])]))
    # Its processor writes the picture's tokens before those of the text; of no text here but what opens it.
    processor = AutoProcessor.from_pretrained(tiny(name))
    frame = clip_frames(clips[1], 1).frames[0]
    asked = torch.tensor([[network.model.config.image_token_index] * 4 + [opening]])
    pixels = processor(images=frame, return_tensors="pt")["pixel_values"]
    theirs, answer = given_to_language(
        network.model, lambda: network.model.generate(pixel_values=pixels, input_ids=asked, **network.search)
    )
    torch.testing.assert_close(ours["inputs_embeds"], theirs["inputs_embeds"])
    assert processor.batch_decode(answer[:, -said.shape[1] :]) == processor.batch_decode(said)


def test_blip2_published_without_an_image_token_captions_all_the_same(tiny, clips):
    folder = tiny("blip2_opt", image_token=False)
    assert not (folder / "processor_config.json").exists()
    answers = [one.answer for one in teacher("old", folder).load().respond(clips[:4])[0]]
    assert answers == [*SAID.values()]


def test_an_image_captioner_sees_the_middle_of_a_clip(tiny, tmp_path):
    colours = ["red"] * 3 + ["blue"] * 4 + ["red"] * 3
    clip = clip_of(write_reel(tmp_path / "a.arrow", [wall(colour) for colour in colours]), 10)
    assert teacher("blip", tiny("blip")).load().respond([clip])[0][0].answer == SAID["blue"]


def test_a_captioner_of_six_frames_sees_those_of_a_short_clip_more_than_once(tiny, clips, tmp_path):
    network = teacher("git_video", tiny("git_video")).network(CPU)
    clip = clip_of(write_reel(tmp_path / "a.arrow", [wall("red"), wall("grey"), wall("blue")]), 3)
    pictures = network.prepare(clip)
    assert pictures.shape == (6, 3, 28, 28)
    assert [torch.equal(pictures[n], pictures[n + 1]) for n in range(5)] == [True, False, True, False, True]


def test_a_t5_never_computes_in_float16(tiny, clips):
    half = Device("cpu", torch.float16)
    networks = {name: teacher(name, tiny(name)).network(half) for name in ("blip2_t5", "blip2_opt")}
    dtypes = {name: network.model.language_model.dtype for name, network in networks.items()}
    assert dtypes == {"blip2_t5": torch.bfloat16, "blip2_opt": torch.float16}
    for network in networks.values():
        with torch.inference_mode():
            raw = network.forward([network.prepare(clip) for clip in clips[:4]])
        assert raw.values == [*SAID.values()]


@pytest.mark.parametrize(
    ("dtype", "kind", "expected"),
    [
        (torch.float16, "t5", torch.bfloat16),
        (torch.float16, "opt", torch.float16),
        (torch.bfloat16, "t5", torch.bfloat16),
        (torch.float32, "t5", torch.float32),
    ],
)
def test_only_a_t5_in_float16_changes_its_numbers(dtype, kind, expected):
    from transformers import AutoConfig

    assert without_float16(Device("cpu", dtype), AutoConfig.for_model(kind)) == Device("cpu", expected)


@pytest.mark.parametrize(
    ("row", "ends", "expected"),
    [
        ([5, 6, 2, 1, 1], 2, Spoken([5, 6], 3)),
        ([5, 6, 7], 2, Spoken([5, 6, 7], 3)),
        ([2, 1], 2, Spoken([], 1)),
        ([5, 9, 2], [2, 9], Spoken([5], 2)),
        ([], 2, Spoken([], 0)),
    ],
)
def test_a_row_is_cut_at_the_token_that_ends_it(row, ends, expected):
    assert until_end(row, ends) == expected


@pytest.mark.parametrize(
    ("left", "values", "mask"),
    [(True, [[0, 1], [2, 3]], [[0, 1], [1, 1]]), (False, [[1, 0], [2, 3]], [[1, 0], [1, 1]])],
)
def test_embeddings_are_padded_where_the_model_needs_it(left, values, mask):
    rows = [torch.tensor([[1.0]]), torch.tensor([[2.0], [3.0]])]
    stacked, kept = padded(rows, left=left)
    assert (stacked.squeeze(2).tolist(), kept.tolist()) == (values, mask)


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("", "<DETAILED_CAPTION>"),
        ("caption", "<CAPTION>"),
        ("detailed-caption", "<DETAILED_CAPTION>"),
        ("more-detailed-caption", "<MORE_DETAILED_CAPTION>"),
        ("<CAPTION>", "<CAPTION>"),
    ],
)
def test_florence_is_asked_by_the_name_of_a_task(prompt, task):
    assert florence_task(prompt) == task


def test_the_task_reaches_florence_in_its_own_words(tiny):
    network = teacher("florence2", tiny("florence2"), prompt="more-detailed-caption").network(CPU)
    told = network.tokenizer.decode(network.asked, skip_special_tokens=True)
    assert told == "Describe with a paragraph what is shown in the image."


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (CaptionerTeacher, {"inputs": "V-S"}, "inputs must be V for tiny, which reads no text, not V-S"),
        (FlorenceTeacher, {"inputs": "V-M"}, "inputs must be V for tiny, which reads no text, not V-M"),
        (FlorenceTeacher, {"frames": 8}, "frames must be 1 for tiny, not 8"),
        (
            FlorenceTeacher,
            {"prompt": "ocr"},
            "prompt must be one of caption, detailed-caption, more-detailed-caption for Florence-2, not 'ocr'",
        ),
    ],
)
def test_what_a_captioner_cannot_do_is_refused_before_it_is_loaded(kind, changes, message):
    with pytest.raises(ValueError) as raised:
        kind("tiny", Settings("folder", **{"frames": 1, **changes}))
    assert str(raised.value) == message


@pytest.mark.parametrize(("name", "frames", "wanted"), [("blip", 8, 1), ("git", 6, 1), ("git_video", 1, 6)])
def test_a_wrong_number_of_frames_is_refused_with_the_right_one(name, frames, wanted, tiny):
    folder = tiny(name)
    with pytest.raises(ValueError) as raised:
        teacher(name, folder, frames=frames).network(CPU)
    assert str(raised.value) == f"frames must be {wanted} for {folder}, not {frames}"


def test_a_checkpoint_of_another_kind_is_refused(tiny):
    folder = tiny("florence2")
    with pytest.raises(WeightsError) as raised:
        CaptionerTeacher("tiny", Settings(str(folder), frames=1)).network(CPU)
    assert str(raised.value) == f"{folder} is a florence2; name one of blip, blip-2, git"
