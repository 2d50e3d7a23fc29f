"""The measure `nsfw`: the worst frame by any image classifier of Transformers, and labels that are really meant."""

from __future__ import annotations

import pathlib

import pytest
from lite_media import clip_of, photographs, write_reel

from model_handlers.measures.nsfw import FALCONSAI, Settings, chosen_labels, measure, unsafe_of
from model_handlers.measures.view import ClipView
from model_handlers.weights import WeightsError

FIVE = ["drawings", "hentai", "neutral", "porn", "sexy"]


def make_classifier(folder: pathlib.Path, labels: list[str], problem: str = "single_label_classification") -> str:
    """A tiny ViT with a head of these labels, spread as in a trained network."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, problem_type=problem, **sizes, **names))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("classifiers") / "five", FIVE)


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    path = tmp_path_factory.mktemp("reels") / "mixed.arrow"
    return ClipView(clip_of(write_reel(path, [*photographs().values()] * 2), 10))


def logits_of(folder: str, view: ClipView, count: int = 6):
    """As the classifier's documentation asks it, one frame at a time."""
    import torch
    import transformers

    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        frames = view.reel.frames(view.uniform(count))
        return torch.cat([model(**processor(images=frame, return_tensors="pt")).logits for frame in frames])


def test_the_worst_frame_counts_and_unsafe_labels_are_added(five, view):
    each = logits_of(five, view).softmax(dim=1)[:, [1, 3, 4]].sum(dim=1)
    found = measure(Settings(five, dtype="float32")).load()(view)
    assert list(found) == ["nsfw"]
    assert found["nsfw"] == pytest.approx(float(each.max()), abs=1e-5)
    assert float(each.max() - each.mean()) > 0.01, "frames that are alike would prove nothing"


def test_labels_that_the_user_means_stand_for_those_found_by_name(five, view):
    each = logits_of(five, view, 3).softmax(dim=1)[:, 0]
    found = measure(Settings(five, unsafe_labels=["drawings"], frames=3, dtype="float32")).load()(view)
    assert found["nsfw"] == pytest.approx(float(each.max()), abs=1e-5)


def test_of_labels_that_do_not_exclude_each_other_the_likeliest_counts(view, tmp_path):
    folder = make_classifier(tmp_path / "many", FIVE, "multi_label_classification")
    each = logits_of(folder, view).sigmoid()[:, [1, 3, 4]].amax(dim=1)
    found = measure(Settings(folder, dtype="float32")).load()(view)
    assert found["nsfw"] == pytest.approx(float(each.max()), abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["normal", "nsfw"], ["nsfw"]),
        (["NSFW", "SFW"], ["NSFW"]),
        (FIVE, ["hentai", "porn", "sexy"]),
        (["explicit_content", "everything else"], ["explicit_content"]),
        (["non-nude", "nude"], ["nude"]),
        (["not_explicit", "safe"], []),
        (["LABEL_0", "LABEL_1"], []),
        (["low", "medium", "high"], []),
        (["corn", "sextant"], []),
    ],
)
def test_unsafe_labels_are_known_by_their_words(labels, expected):
    assert unsafe_of(labels) == expected


@pytest.mark.parametrize(
    ("labels", "asked", "message"),
    [
        (
            ["LABEL_0", "LABEL_1"],
            [],
            r"none of the labels of w is unsafe by its name \(LABEL_0, LABEL_1\); write unsaf",
        ),
        (["porn", "hentai"], [], r"all of the labels of w is unsafe by its name \(porn, hentai\); write unsafe_labels"),
        (FIVE, ["pron"], "w has no label 'pron'; .*porn"),
        (["nsfw", "sfw"], ["nsfw", "sfw"], "all of the labels"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(labels, asked, message):
    with pytest.raises(WeightsError, match=message):
        chosen_labels(dict(enumerate(labels)), asked, "w")


def test_a_classifier_whose_labels_say_nothing_is_refused_before_it_is_loaded(tmp_path):
    with pytest.raises(WeightsError, match="write unsafe_labels: with those that are meant"):
        measure(Settings(make_classifier(tmp_path / "mute", ["LABEL_0", "LABEL_1"]))).load()


def test_a_checkpoint_without_a_classifiers_head_is_refused_not_filled_with_noise(five, tmp_path):
    import transformers

    folder = str(tmp_path / "headless")
    transformers.ViTModel.from_pretrained(five).save_pretrained(folder)
    transformers.AutoImageProcessor.from_pretrained(five).save_pretrained(folder)
    with pytest.raises(WeightsError, match=r"lacks 2 tensors of AutoModelForImageClassification, such as classifier"):
        measure(Settings(folder)).load()


def test_its_identity_changes_with_weights_labels_and_frames(five, tmp_path):
    kinds = [
        Settings(),
        Settings(five),
        Settings(five, unsafe_labels=("porn",)),
        Settings(five, frames=8),
        Settings(make_classifier(tmp_path / "two", ["normal", "nsfw"])),
    ]
    assert len({measure(settings).identity for settings in kinds}) == len(kinds)
    # The default is pinned, and nobody is asked.
    assert measure(kinds[0]).identity[0] == "e94a3846fa68ed43dbf7426a16b2be2ae0e2e1f8"
    assert kinds[0].weights == FALCONSAI


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unsafe_labels": "porn"}, "unsafe_labels must be a list of the classifier's labels, not 'porn'"),
        ({"unsafe_labels": [1]}, r"not \[1\]"),
        ({"frames": -1}, "frames must be a whole number from 1 up, not -1"),
        ({"weights": 5}, "weights must be a text, not 5"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_in_words(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_missing_weights_are_told(tmp_path):
    with pytest.raises(WeightsError, match="there is no directory"):
        measure(Settings(str(tmp_path / "none")))
    with pytest.raises(WeightsError, match="our-org/filter needs a pinned revision"):
        measure(Settings("our-org/filter"))
