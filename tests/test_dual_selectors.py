"""Selectors of two towers, of pictures or of videos: the model's own numbers in any batch, and nothing cut off."""

from __future__ import annotations

import json
import math
import pathlib
import threading

import apache_beam as beam
import numpy as np
import pytest
import tiny_dual
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from lite_media import clip_of, photographs, write_reel

from model_handlers.devices import choose_device
from model_handlers.dual_selectors import DualEncoderSelector, Reader, sigmoid
from model_handlers.long_captions import combine, pieces
from model_handlers.resident import ResidentHandler
from model_handlers.settings import Settings
from model_handlers.video_selectors import VideoTextSelector
from model_handlers.weights import WeightsError
from transforms.records import Candidate, CaptionedClip, Outcome
from transforms.reel import Reel

PICTURES, VIDEOS = ["clip", "siglip", "siglip2_naflex"], ["xclip", "videoprism"]
#: Those that need a package which is not always there.
NEEDS = {"siglip_of_2023": "sentencepiece", "pe_video": "timm"}
ALL = [*PICTURES, *VIDEOS, *NEEDS]
FRAMES = 4
LONG = "A cat sits on the sofa and looks at the camera. " * 9


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny checkpoint, made when it is first asked for."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(name: str) -> pathlib.Path:
        if name in NEEDS:
            pytest.importorskip(NEEDS[name], reason=f"{name} needs the package {NEEDS[name]}")
        if not (root / name).exists():
            getattr(tiny_dual, f"make_{name}")(root / name)
        return root / name

    return folder


@pytest.fixture(scope="module")
def reels(tmp_path_factory):
    """Three reels of four frames; those of the first two differ in size within the reel."""
    folder = tmp_path_factory.mktemp("reels")
    shown = photographs()
    pairs = [("cat", "coffee"), ("rocket", "temple"), ("flower", "flower")]
    return [
        write_reel(folder / f"{number}.arrow", [shown[name] for name in (one, one, other, other)])
        for number, (one, other) in enumerate(pairs)
    ]


@pytest.fixture(scope="module")
def requests(reels):
    return [
        captioned(reels[0], 0, "A cat sits on the sofa.", "Two dogs run across a green field.", LONG),
        captioned(
            reels[1], 1, "A red car drives.", "A cat sits on the sofa.", "a man", "the river at night", "it rains"
        ),
        captioned(reels[2], 2, "A cat sits on the sofa."),
    ]


def captioned(reel: str, number: int, *texts: str) -> CaptionedClip:
    candidates = tuple(Candidate(f"t{n}", "m", "r", "p", text, "f") for n, text in enumerate(texts))
    return CaptionedClip(clip_of(reel, FRAMES, f"clip-{number}"), candidates, (), ())


def selector(folder: pathlib.Path, frames: int = FRAMES, dtype: str = "float32") -> ResidentHandler:
    kind = VideoTextSelector if folder.name in (*VIDEOS, "pe_video") else DualEncoderSelector
    return kind(folder.name, Settings(weights=str(folder), frames=frames, dtype=dtype))


def outcomes(handler: ResidentHandler, requests: list[CaptionedClip]) -> list[Outcome]:
    return list(handler.run_inference(requests, handler.load_model()))


def answers(handler: ResidentHandler, requests: list[CaptionedClip]) -> list[tuple[float, ...]]:
    found = outcomes(handler, requests)
    assert [outcome.failure for outcome in found] == [None] * len(requests)
    return [outcome.answer for outcome in found]


def as_published(name: str, folder: pathlib.Path, frames: list[np.ndarray], texts: list[str]) -> list[float]:
    """The scores of one clip by the model's own forward pass, asked as its documentation does."""
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kind = transformers.AutoVideoProcessor if name in ("videoprism", "pe_video") else transformers.AutoImageProcessor
    processor = kind.from_pretrained(folder)
    with torch.inference_mode():
        if name == "clip":
            told = model(
                **processor(frames, return_tensors="pt"), **tokenizer(texts, padding=True, return_tensors="pt")
            )
            return (torch.nn.functional.normalize(told.image_embeds.mean(0), dim=0) @ told.text_embeds.T).tolist()
        if name in ("siglip", "siglip2_naflex", "siglip_of_2023"):
            # All 64 places, filled on the right, without a mask.
            ids = [tokenizer(text.lower())["input_ids"] for text in texts]
            filled = torch.tensor([[*row, *[tokenizer.pad_token_id] * (64 - len(row))] for row in ids])
            told = model(input_ids=filled, **processor(images=frames[:1], return_tensors="pt"))
            return torch.sigmoid(told.logits_per_image)[0].tolist()
        if name == "xclip":
            pixels = processor(frames, return_tensors="pt")
            told = model(**pixels, **tokenizer(texts, padding=True, return_tensors="pt"))
            return (told.logits_per_video[0] / model.logit_scale.exp()).tolist()
        pixels = processor(videos=[np.stack(frames)], do_sample_frames=False, return_tensors="pt")
        if name == "pe_video":
            told = model(**pixels, **tokenizer(texts, padding=True, return_tensors="pt"))
            return torch.sigmoid(told.logits_video_text)[0].tolist()
        lowered = [text.lower().replace(",", "").removesuffix(".") + "." for text in texts]
        told = model(**pixels, **tokenizer(lowered, padding="max_length", max_length=64, return_tensors="pt"))
        return (told.video_embeds @ told.text_embeds.T)[0].tolist()


@pytest.mark.parametrize("name", ALL)
def test_scores_are_those_of_the_models_own_forward_pass(name, tiny, tmp_path):
    shown = photographs()
    # SigLIP's forward pass knows single pictures only: all its frames are the same one.
    pictures = (
        [shown["cat"]] * 4 if "siglip" in name else [shown["temple"], shown["temple"], shown["flower"], shown["flower"]]
    )
    reel = write_reel(tmp_path / "r.arrow", pictures)
    texts = ["A cat sits on the SOFA.", "Two dogs run, in the river", "it rains"]
    (found,) = answers(selector(tiny(name)), [captioned(reel, 0, *texts)])
    expected = as_published(name, tiny(name), Reel.open(reel).frames(range(4)), texts)
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(set(found)) == 3
    low = -1.0 if name in ("clip", *VIDEOS) else 0.0
    assert all(type(score) is float and low <= score <= 1.0 for score in found)


@pytest.mark.parametrize("name", ALL)
def test_a_clip_has_its_own_scores_in_whatever_batch_it_comes(name, tiny, requests):
    handler = selector(tiny(name))
    together = answers(handler, requests)
    assert [len(scores) for scores in together] == [3, 5, 1]
    for order in ([2, 0, 1], [1, 2, 0], [0], [1], [2]):
        again = answers(handler, [requests[number] for number in order])
        for number, scores in zip(order, again, strict=True):
            assert scores == pytest.approx(together[number], abs=1e-5)
    # One caption, three clips, three scores: a mix-up would show.
    cat = [together[0][0], together[1][1], together[2][0]]
    assert min(abs(one - other) for one, other in [(cat[0], cat[1]), (cat[1], cat[2]), (cat[2], cat[0])]) > 1e-4


@pytest.mark.parametrize("name", ALL)
def test_in_sixteen_bits_a_score_does_not_depend_on_the_captions_beside_it(name, tiny, reels):
    handler = selector(tiny(name), dtype="bfloat16")
    (alone,) = answers(handler, [captioned(reels[0], 0, "it rains")])
    (together,) = answers(handler, [captioned(reels[0], 0, "it rains", "A man is cooking onions in a kitchen.", LONG)])
    assert together[0] == pytest.approx(alone[0], abs=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_the_same_words_twice_have_exactly_the_same_score(name, tiny, reels):
    (scores,) = answers(
        selector(tiny(name)), [captioned(reels[0], 0, "A cat sits.", "it rains", "A cat sits.", LONG, LONG)]
    )
    assert scores[0] == scores[2] != scores[1]
    assert scores[3] == scores[4]


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_a_long_caption_is_cut_off(name, tiny, reels):
    handler = selector(tiny(name))
    # Three times what any of them reads.
    texts = [LONG * 3 + "A cat sits.", LONG * 3 + "Two dogs run across a green field near the river."]
    (scores,) = answers(handler, [captioned(reels[0], 0, *texts)])
    assert abs(scores[0] - scores[1]) > 1e-5


@pytest.mark.parametrize(("name", "limit"), [("clip", 77), ("xclip", 77), ("videoprism", 64)])
def test_a_long_caption_has_the_mean_of_its_pieces_weighted_by_tokens(name, limit, tiny, reels):
    handler = selector(tiny(name))
    reader = handler.load_model()._network._reader
    parts = pieces(LONG + "Two dogs run.", reader.count, limit)
    assert len(parts) > 1 and max(reader.count(part) for part in parts) <= limit
    (scores,) = answers(handler, [captioned(reels[0], 0, LONG + "Two dogs run.", *parts)])
    assert scores[0] == pytest.approx(combine(scores[1:], [reader.count(part) for part in parts]), abs=1e-6)


def test_pieces_of_a_siglip_caption_are_combined_before_the_sigmoid(tiny, reels):
    """A mean of probabilities would let one good sentence carry any number of wrong ones."""
    handler = selector(tiny("siglip"))
    reader = handler.load_model()._network._reader
    parts = pieces(LONG, reader.count, 64)
    (scores,) = answers(handler, [captioned(reels[0], 0, LONG, *parts)])
    logits = [math.log(score / (1 - score)) for score in scores[1:]]
    assert scores[0] == pytest.approx(sigmoid(combine(logits, [reader.count(part) for part in parts])), abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_each_distinct_text_of_a_batch_is_read_once(name, tiny, requests):
    network = selector(tiny(name)).load_model()._network
    read: list[int] = []
    hook = network._model.text_model.register_forward_pre_hook(
        lambda _, given, named: read.append(len(named["input_ids"])), with_kwargs=True
    )
    prepared = [network.prepare(request) for request in requests]
    network.forward(prepared)
    hook.remove()
    texts = {text for one in prepared for cut in one.captions for text in cut.texts}
    assert read == [len(texts)]
    # Of nine captions three are the same, and one falls into pieces.
    assert len(texts) >= 8


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2_naflex", "siglip_of_2023", "videoprism"])
def test_capitals_do_not_matter_where_the_model_was_trained_without_them(name, tiny, reels):
    (scores,) = answers(selector(tiny(name)), [captioned(reels[0], 0, "a cat on the sofa.", "A CAT on the Sofa.")])
    assert scores[0] == scores[1]


@pytest.mark.parametrize("name", ALL)
def test_a_bad_clip_costs_itself_on_the_runner(name, tiny, requests, tmp_path):
    lost = captioned(str(tmp_path / "no.arrow"), 9, "A cat sits.")
    expected = dict(zip(["clip-0", "clip-1", "clip-2"], answers(selector(tiny(name)), requests), strict=True))
    told = tmp_path / "told.jsonl"
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        _ = (
            pipeline
            | beam.Create([requests[0], lost, *requests[1:]])
            | RunInference(selector(tiny(name)))
            | beam.Map(_line)
            | beam.io.WriteToText(str(told), shard_name_template="")
        )
    lines = [json.loads(line) for line in told.read_text("utf-8").splitlines()]
    seen = {clip_id: (answer, failure) for clip_id, answer, failure in lines}
    assert seen.pop("clip-9") == (None, "ReelError")
    assert sorted(seen) == sorted(expected)
    for clip_id, (answer, failure) in seen.items():
        assert failure is None
        assert answer == pytest.approx(expected[clip_id], abs=1e-5)


def _line(outcome: Outcome) -> str:
    failure = outcome.failure.error_class if outcome.failure else None
    return json.dumps([outcome.request.clip.clip_id, outcome.answer, failure])


def test_a_clip_without_candidates_has_no_scores_and_an_empty_caption_has_one(tiny, reels):
    handler = selector(tiny("clip"))
    assert answers(handler, [captioned(reels[0], 0)]) == [()]
    none, blank = answers(handler, [captioned(reels[0], 0), captioned(reels[1], 1, " ", "a cat")])
    assert (none, len(blank)) == ((), 2)


def test_a_fit_that_is_no_number_costs_its_clip(tiny, requests):
    network = selector(tiny("clip")).load_model()._network
    assert network.finish(requests[2], [([0.25, 0.75], (1, 1))]) == (0.5,)
    with pytest.raises(ValueError, match="finite"):
        network.finish(requests[2], [([float("nan")], (3,))])


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_model_sees_as_many_frames_as_it_was_trained_on(name, tiny, reels, tmp_path):
    """A reel of two frames is one of four in which each stands twice, and the settings have no say."""
    shown = photographs()
    two = write_reel(tmp_path / "two.arrow", [shown["temple"], shown["flower"]])
    four = write_reel(tmp_path / "four.arrow", [shown[name] for name in ("temple", "temple", "flower", "flower")])
    scores = answers(
        selector(tiny(name), frames=12), [captioned(two, 0, "A cat sits."), captioned(four, 1, "A cat sits.")]
    )
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    turned = write_reel(tmp_path / "turned.arrow", [shown["flower"], shown["temple"]])
    (other,) = answers(selector(tiny(name)), [captioned(turned, 2, "A cat sits.")])
    assert abs(other[0] - scores[0][0]) > 1e-4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_frames_than_asked_for_are_no_matter_for_picture_models(count, tiny, tmp_path, reels):
    short = write_reel(tmp_path / "short.arrow", [photographs()["flower"]] * count)
    one, whole = answers(
        selector(tiny("clip"), 12), [captioned(short, 0, "it rains"), captioned(reels[2], 1, "it rains")]
    )
    assert one == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("fit", "expected"),
    [(0.0, 0.5), (2.0, 0.8807970779778823), (-2.0, 0.11920292202211755), (800.0, 1.0), (-800.0, 0.0)],
)
def test_sigmoid_overflows_at_neither_end(fit, expected):
    assert sigmoid(fit) == pytest.approx(expected, abs=1e-12)


def test_threads_share_one_tokenizer(tiny):
    """Its native half refuses two threads that ask for different padding at once."""
    import transformers

    reader = Reader(transformers.AutoTokenizer.from_pretrained(tiny("clip")), 77)
    device = choose_device("float32")
    wrong: list[object] = []

    def read(number: int) -> None:
        text = "a cat on the sofa " * (1 + number)
        expected = reader.count(text)
        for _ in range(60):
            try:
                shape = tuple(reader.batch([text, "it"], device)["input_ids"].shape)
                if reader.count(text) != expected or shape != (2, 77):
                    wrong.append(shape)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (DualEncoderSelector, "xclip", "is a xclip model; this selector wants CLIP, SigLIP or SigLIP 2"),
        (VideoTextSelector, "clip", "is a clip model; this selector wants X-CLIP, VideoPrism or Perception Encoder"),
        (DualEncoderSelector, "dinov2", "is a dinov2 model; this selector wants CLIP"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_by_name(kind, name, message, tiny):
    with pytest.raises(WeightsError, match=message):
        kind("wrong", Settings(weights=str(tiny(name)))).load_model()
