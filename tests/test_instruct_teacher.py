"""InstructBLIP on tiny weights: what it is asked, what reaches its two readers, what it says of one frame or four."""

import dataclasses
import shutil

import apache_beam as beam
import pytest
import tiny_captioners
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that, equal_to
from lite_media import clip_of, write_reel
from tiny_sentences import SAID, given_to_language, wall

from model_handlers.devices import Device
from model_handlers.frames import clip_frames
from model_handlers.instruct_teacher import InstructTeacher, budgets
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CPU = Device("cpu", torch.float32)
FAMILIES = ["vicuna", "t5"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny InstructBLIP with the language model of that name."""
    folders = {name: tmp_path_factory.mktemp(name) for name in FAMILIES}
    for name, folder in folders.items():
        getattr(tiny_captioners, f"make_instructblip_{name}")(folder)
    return folders


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Four clips of plain colours, in pictures of several sizes, with ever more text."""
    folder = tmp_path_factory.mktemp("reels")
    return [
        clip_of(
            write_reel(folder / f"{number}.arrow", [wall(colour, 64 + 16 * number)] * (3 + 2 * number)),
            3 + 2 * number,
            f"clip-{number}",
            title="the old boat" if number else None,
            description=None,
            subtitles="We sail all day. " * number or None,
        )
        for number, colour in enumerate(SAID)
    ]


def teacher(folder, **changes):
    return InstructTeacher("tiny", Settings(str(folder), **{"frames": 1, "inputs": "V-S-M", **changes}))


@pytest.mark.parametrize(("name", "frames"), [("vicuna", 1), ("vicuna", 4), ("t5", 1), ("t5", 4)])
def test_each_clip_gets_its_own_caption_and_a_missing_reel_costs_itself(name, frames, tiny, clips):
    missing = dataclasses.replace(clips[0], clip_id="clip-missing", reel="/no/such.arrow")
    expected = [(clip.clip_id, said, None) for clip, said in zip(clips, SAID.values(), strict=True)]
    expected.append(("clip-missing", None, "ReelError"))
    with beam.Pipeline("FnApiRunner") as pipeline:
        told = (
            pipeline
            | beam.Create([missing, *clips], reshuffle=False)
            | RunInference(teacher(tiny[name], frames=frames))
            | beam.Map(lambda one: (one.request.clip_id, one.answer, one.failure and one.failure.error_class))
        )
        assert_that(told, equal_to(expected))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_caption_does_not_depend_on_longer_prompts_in_its_batch(name, tiny, clips):
    network = teacher(tiny[name]).network(CPU)
    with torch.inference_mode():
        prepared = [network.prepare(clip) for clip in clips]
        assert len({len(one.words) for one in prepared}) == len({len(one.guiding) for one in prepared}) == 4
        together = network.forward(prepared)
        alone = [network.forward([one]) for one in prepared]
    assert together.values == [one.values[0] for one in alone] == [*SAID.values()]
    assert together.tokens == sum(one.tokens for one in alone)


@pytest.mark.parametrize(("name", "unpadded"), [("vicuna", -1), ("t5", 0)])
def test_padding_stands_where_it_changes_nothing(name, unpadded, tiny, clips):
    network = teacher(tiny[name]).network(CPU)
    prepared = [network.prepare(clip) for clip in clips]
    both, _ = given_to_language(network.model, lambda: network.forward(prepared))
    # A decoder goes on from the last column; an encoder counts from the first.
    assert both["attention_mask"][:, unpadded].tolist() == [1, 1, 1, 1]
    assert both["attention_mask"].sum(dim=1).tolist() == [4 + len(one.words) for one in prepared]
    for number, one in enumerate(prepared):
        alone, _ = given_to_language(network.model, lambda one=one: network.forward([one]))
        kept = both["inputs_embeds"][number][both["attention_mask"][number].bool()]
        torch.testing.assert_close(kept, alone["inputs_embeds"][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_language_model_reads_what_transformers_own_way_hands_to_it(name, frames, tiny, clips):
    import transformers

    network = teacher(tiny[name], frames=frames).network(CPU)
    asked = network.prepare(clips[1])
    ours, said = given_to_language(network.model, lambda: network.forward([asked]))
    if frames == 1:
        model = network.model
        marks = [model.config.image_token_index] * 4
        pixels = transformers.AutoImageProcessor.from_pretrained(tiny[name])(
            clip_frames(clips[1], 1).frames, return_tensors="pt"
        )["pixel_values"]
    else:
        # The class for videos, of the same files.
        model = transformers.InstructBlipVideoForConditionalGeneration.from_pretrained(tiny[name])
        marks = [model.config.video_token_index] * 4 * frames
        pixels = asked.pictures[None]
    theirs, answer = given_to_language(
        model,
        lambda: model.generate(
            pixel_values=pixels,
            qformer_input_ids=torch.tensor([asked.guiding]),
            input_ids=torch.tensor([marks + asked.words]),
            # Theirs would punish words of the prompt, too.
            **{**network.search, "repetition_penalty": 1.0},
        ),
    )
    torch.testing.assert_close(ours["inputs_embeds"], theirs["inputs_embeds"])
    words = network.tokenizer.decode(answer[0, -said.shape[1] :], skip_special_tokens=True)
    assert words == network.tokenizer.decode(said[0], skip_special_tokens=True) == SAID["green"]


@pytest.mark.parametrize(("inputs", "title", "spoken"), [("V", 0, 0), ("V-M", 1, 0), ("V-S", 0, 2), ("V-S-M", 1, 2)])
@pytest.mark.parametrize("name", FAMILIES)
def test_both_readers_get_the_text_that_the_inputs_name(name, inputs, title, spoken, tiny, clips):
    network = teacher(tiny[name], inputs=inputs).network(CPU)
    asked = network.prepare(clips[2])
    for tokenizer, tokens in ((network.tokenizer, asked.words), (network._guide, asked.guiding)):
        read = tokenizer.decode(tokens, skip_special_tokens=True).lower()
        assert (read.count("the old boat"), read.count("we sail all day")) == (title, spoken)


def test_the_q_former_gets_as_much_text_as_it_has_room_for(tiny, clips):
    talk = dataclasses.replace(clips[0], subtitles="We sail all day and all night. " * 100)
    network = teacher(tiny["t5"]).network(CPU)
    asked = network.prepare(talk)
    assert 480 < len(asked.guiding) <= 512 < len(asked.words) <= 1024
    request = "answer with the sentence alone, in english."
    assert network._guide.decode(asked.guiding, skip_special_tokens=True).endswith(request)
    assert network.tokenizer.decode(asked.words, skip_special_tokens=True).lower().endswith(request)


def test_a_title_cannot_stand_for_a_picture_or_end_the_prompt(tiny, clips):
    hostile = dataclasses.replace(clips[0], title="a <image> b </s> c [SEP] d <video> e [PAD] f")
    network = teacher(tiny["vicuna"]).network(CPU)
    asked = network.prepare(hostile)
    special = set(network.tokenizer.all_special_ids)
    assert [token for token in asked.words if token in special] == [network.tokenizer.bos_token_id]
    assert [asked.guiding.count(token) for token in (network._guide.sep_token_id, network._guide.pad_token_id)] == [
        1,
        0,
    ]
    assert "<image>" not in network.tokenizer.decode(asked.words)
    with torch.inference_mode():
        assert network.forward([asked]).values == [SAID["red"]]


@pytest.mark.parametrize(("frames", "request_"), [(1, "Summarise this frame of a video"), (4, "Summarise this video")])
def test_without_a_prompt_it_is_asked_for_what_it_sees(frames, request_, tiny, clips):
    network = teacher(tiny["vicuna"], frames=frames, inputs="V").network(CPU)
    read = network.tokenizer.decode(network.prepare(clips[0]).words, skip_special_tokens=True)
    assert request_ in read


def test_frames_are_shown_in_order(tiny, tmp_path):
    clip = clip_of(write_reel(tmp_path / "a.arrow", [wall(colour) for colour in SAID]), 4)
    shown = teacher(tiny["t5"], frames=4).network(CPU).prepare(clip).pictures
    alone = [
        teacher(tiny["t5"]).network(CPU).look(wall(colour), return_tensors="pt")["pixel_values"][0] for colour in SAID
    ]
    nearest = [min(range(4), key=lambda n, one=one: float((alone[n] - one).abs().mean())) for one in shown]
    assert nearest == [0, 1, 2, 3]


def test_teachers_of_one_frame_and_of_four_share_their_weights(tiny):
    frame, video = (teacher(tiny["t5"], frames=frames).network(CPU) for frames in (1, 4))
    assert frame.model is video.model


def test_a_checkpoint_saved_by_the_class_for_videos_says_the_same(tiny, clips, tmp_path):
    import transformers

    shutil.copytree(tiny["t5"], tmp_path, dirs_exist_ok=True)
    transformers.InstructBlipVideoForConditionalGeneration.from_pretrained(tiny["t5"]).save_pretrained(tmp_path)
    assert transformers.AutoConfig.from_pretrained(tmp_path).model_type == "instructblipvideo"
    outcomes, _ = teacher(tmp_path, frames=4).load().respond(clips)
    assert [one.answer for one in outcomes] == [*SAID.values()]


def test_a_t5_never_computes_in_float16(tiny, clips):
    half = Device("cpu", torch.float16)
    dtypes = [teacher(tiny[name]).network(half).model.language_model.dtype for name in FAMILIES]
    assert dtypes == [torch.float16, torch.bfloat16]


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("llama", {"frames": 1}, (1024, 512)),
        ("llama", {"frames": 1, "text_tokens": 300}, (300, 300)),
        # 2048 positions less 40 frames of 32 queries and 64 tokens of the answer.
        ("llama", {"frames": 40}, (704, 512)),
        ("t5", {"frames": 40, "text_tokens": 4000}, (4000, 512)),
    ],
)
def test_what_frames_and_answer_leave_of_a_context_is_the_budget(kind, changes, expected):
    from transformers import InstructBlipConfig

    config = InstructBlipConfig(text_config={"model_type": kind}, num_query_tokens=32)
    assert budgets(config, Settings("folder", **changes)) == expected


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    tiny_captioners.make_git(tmp_path)
    with pytest.raises(WeightsError) as raised:
        teacher(tmp_path).network(CPU)
    assert str(raised.value) == f"{tmp_path} is a git; name one of instructblip, instructblipvideo"
