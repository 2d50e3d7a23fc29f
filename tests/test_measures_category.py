"""The measure `category`: real pictures by the lite backend, exact arithmetic by checkpoints, clear refusals."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import tiny_dual
from lite_media import clip_of, photographs, write_reel

from model_handlers import conse, vision
from model_handlers.measures import category, two_towers
from model_handlers.measures.category import Settings, labels_of, measure
from model_handlers.measures.view import ClipView
from model_handlers.weights import WeightsError

SPORTS = {"sports": "a photo of people doing sports", "food": ["a plate of food", "somebody cooks"], "cats": "a cat"}
MAKERS = {
    "clip": tiny_dual.make_clip,
    "siglip": tiny_dual.make_siglip,
    "siglip2_naflex": tiny_dual.make_siglip2_naflex,
    "dinov2": tiny_dual.make_dinov2,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    for name, make in MAKERS.items():
        make(folder / name)
    return folder


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reels")
    return {
        name: ClipView(clip_of(write_reel(folder / f"{name}.arrow", [picture] * 3), 3))
        for name, picture in photographs().items()
    }


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Five frames of other pictures, of which four are looked at."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.arrow"
    return ClipView(clip_of(write_reel(path, list(photographs().values())), 5))


@pytest.mark.parametrize(("picture", "expected"), [("cat", "animals"), ("coffee", "food"), ("temple", "city")])
def test_lite_tells_clear_pictures_by_the_packaged_categories(picture, expected, views):
    told = measure(Settings()).load()(views[picture])
    assert told["category"] == expected
    assert 0.2 < told["category_score"] <= 1.0


def test_lite_scores_are_the_softmax_of_the_recalled_picture_over_the_categories(mixed):
    space, seen = conse.load_conse(), vision.load_vision().look(mixed.reel, mixed.uniform(4)).probabilities
    # The first category's stock opening says nothing, and is not read.
    texts = [["people doing sports"], ["a plate of food", "somebody cooks"], ["a cat"]]
    means = [space.texts(told).mean(axis=0) for told in texts]
    fits = np.array([mean / np.linalg.norm(mean) @ space.recall(space.picture(seen)) for mean in means])
    expected = np.exp(15 * fits) / np.exp(15 * fits).sum()
    told = measure(Settings(SPORTS)).load()(mixed)
    assert told["category"] == list(SPORTS)[int(expected.argmax())]
    assert told["category_score"] == pytest.approx(expected.max(), abs=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2_naflex"])
def test_a_checkpoint_scores_as_transformers_computes_it(name, tiny, mixed):
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(tiny / name).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tiny / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / name)
    texts = ["a photo of people doing sports", "a plate of food", "somebody cooks", "a cat"]
    frames = mixed.reel.frames(mixed.uniform(4))
    assert len(frames) == 4
    with torch.inference_mode():
        if name == "clip":
            tokens = tokenizer(texts, padding=True, return_tensors="pt")
        else:
            # All 64 places, filled on the right, without a mask.
            ids = [tokenizer(text)["input_ids"] for text in texts]
            tokens = {"input_ids": torch.tensor([[*row, *[tokenizer.pad_token_id] * (64 - len(row))] for row in ids])}
        told = model(**tokens, **processor(images=frames, return_tensors="pt"))
        normal = torch.nn.functional.normalize
        one, two, three, four = told.text_embeds
        means = normal(torch.stack([one, (two + three) / 2, four]), dim=-1)
        logits = model.logit_scale.exp() * (means @ normal(told.image_embeds.mean(dim=0), dim=0))
        expected = logits.softmax(dim=0)
    found = measure(Settings(SPORTS, weights=str(tiny / name), dtype="float32")).load()(mixed)
    assert found["category"] == list(SPORTS)[int(expected.argmax())]
    assert found["category_score"] == pytest.approx(float(expected.max()), abs=1e-5)
    assert float(expected.max()) < 0.999, "a saturated score would prove nothing"


def test_the_order_of_the_categories_does_not_matter(tiny, views):
    turned = dict(reversed(SPORTS.items()))
    for weights in ("", str(tiny / "clip")):
        one, other = (measure(Settings(labels, weights=weights)).load()(views["coffee"]) for labels in (SPORTS, turned))
        assert one["category"] == other["category"]
        assert one["category_score"] == pytest.approx(other["category_score"], abs=1e-6)


def test_a_measure_travels_to_a_worker_and_says_the_same_there(views):
    made = measure(Settings(SPORTS))
    sent = pickle.loads(pickle.dumps(made))
    assert sent.identity == made.identity
    assert sent.load()(views["cat"]) == made.load()(views["cat"])


def test_its_identity_changes_with_labels_weights_and_frames_but_not_with_the_place(tiny, tmp_path):
    shutil.copytree(tiny / "clip", tmp_path / "copy")
    clip = str(tiny / "clip")
    kinds = [
        Settings(),
        Settings(SPORTS),
        Settings({**SPORTS, "cats": "a kitten"}),
        Settings(frames=5),
        Settings(SPORTS, weights=clip),
        Settings(SPORTS, weights=clip, dtype="bfloat16"),
        Settings(SPORTS, weights=str(tiny / "siglip")),
    ]
    assert len({measure(settings).identity for settings in kinds}) == len(kinds)
    assert measure(Settings(SPORTS, weights=str(tmp_path / "copy"))).identity == measure(kinds[4]).identity
    assert measure(Settings(dict(SPORTS))).identity == measure(kinds[1]).identity


def test_the_packaged_categories_are_seventeen_with_two_sentences_or_more(tiny):
    settings = Settings()
    assert len(settings.names) == 17
    assert min(len(prompts) for prompts in settings.prompts) == 2
    texts = [text for prompts in settings.prompts for text in prompts]
    assert len(texts) == len(set(texts))
    # A text tower of 77 tokens reads them to the end.
    towers = two_towers.load_towers(two_towers.checkpoint(str(tiny / "clip")))
    assert towers.read(texts[:3]).shape == (3, 16)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["sports", "live_music"], (("sports", ("a photo of sports",)), ("live_music", ("a photo of live music",)))),
        ({"a": "one", "b": ["two", "three"]}, (("a", ("one",)), ("b", ("two", "three")))),
        ((("a", ("one",)), ("b", ("two",))), (("a", ("one",)), ("b", ("two",)))),
    ],
)
def test_labels_are_names_or_names_with_prompts(labels, expected):
    assert labels_of(labels) == expected
    assert Settings(labels).labels == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": {"sports": "people"}}, "two categories or more"),
        ({"labels": {"sports": "people", "food": ""}}, "each with a prompt"),
        ({"labels": {"sports": "people", "food": None}}, "each with a prompt"),
        ({"labels": {"sports": "people", "food": []}}, "each with a prompt"),
        ({"labels": []}, "two categories or more"),
        ({"labels": "sports"}, "labels must be names, or names with prompts, not 'sports'"),
        ({"labels": 7}, "labels must be names, or names with prompts, not 7"),
        ({"labels": {"sports": "people", True: "yes"}}, "labels must be texts, not True; put quotation marks"),
        ({"labels": {"sports": "people", "food": 3}}, "labels must be texts, not 3"),
        ({"labels": {"sports": "people", "food": ["a", 3]}}, "labels must be texts, not 3"),
        ({"labels": {"sports": "people", "food": "  "}}, "labels must be texts, not '  '"),
        ({"labels": ["sports", "food", "sports"]}, "labels names 'sports' twice"),
        ({"frames": 0}, "frames must be a whole number from 1 up, not 0"),
        ({"frames": True}, "frames must be a whole number from 1 up, not True"),
        ({"revision": "0" * 40}, "name the model under weights:"),
        ({"weights": "x", "dtype": "float8"}, "dtype must be one of auto"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_in_words(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_weights_that_are_missing_or_of_another_kind_are_told(tiny, tmp_path):
    with pytest.raises(WeightsError, match=r"there is no directory .*; name a checkpoint's directory, gs://, or a hub"):
        measure(Settings(weights=str(tmp_path / "none")))
    with pytest.raises(WeightsError, match="our-org/our-model needs a pinned revision"):
        measure(Settings(weights="our-org/our-model"))
    with pytest.raises(WeightsError, match="is a dinov2 model; name one of CLIP, SigLIP or SigLIP 2"):
        measure(Settings(weights=str(tiny / "dinov2"))).load()


def test_a_hub_model_of_the_catalogue_is_taken_at_its_pinned_commit():
    settings = Settings(weights="openai/clip-vit-large-patch14").checkpoint()
    assert settings.revision == "32bd64288804d66eefd0ccbe215aa642df71cc41"
    other = Settings(weights="openai/clip-vit-large-patch14", revision="a" * 40).checkpoint()
    assert other.revision == "a" * 40


def test_a_prompt_too_long_for_the_text_tower_is_refused_not_cut(tiny):
    labels = {"short": "a cat", "long": "a cat on the sofa looks at the camera and " * 20}
    with pytest.raises(ValueError, match="does not read to the end of 'a cat on the sofa"):
        measure(Settings(labels, weights=str(tiny / "clip"))).load()


def test_frames_of_one_clip_are_computed_once_for_all_measures_of_the_same_weights(tiny, mixed):
    """What the second one gets are the very arrays of the first."""
    towers = two_towers.load_towers(two_towers.checkpoint(str(tiny / "siglip")))
    assert two_towers.load_towers(two_towers.checkpoint(str(tiny / "siglip"))) is towers
    first = towers.see(mixed, [0, 1, 2])
    kept = [towers._seen.get((mixed.reel.key, row)) for row in (0, 1, 2)]
    again = towers.see(mixed, [2, 1, 3, 2])
    assert towers._seen.get((mixed.reel.key, 2)) is kept[2]
    assert again[[0, 3]].tolist() == [first[2].tolist()] * 2
    assert again[1].tolist() == first[1].tolist()
    # Each row has its own frame's vector, whatever came before it.
    for row, vector in zip([2, 1, 3], again, strict=False):
        (alone,) = towers.see_frames(mixed.reel.frames([row]))
        assert np.abs(vector - alone).max() < 1e-5
    assert np.abs(again[0] - again[1]).max() > 1e-2
    assert len(towers._seen) >= 4


@pytest.mark.parametrize(
    ("logits", "expected"), [([0.0, 0.0], [0.5, 0.5]), ([1000.0, 0.0], [1.0, 0.0]), ([0.0, np.log(3)], [0.25, 0.75])]
)
def test_softmax_overflows_nowhere(logits, expected):
    assert category.softmax(np.array(logits)).tolist() == pytest.approx(expected, abs=1e-12)
