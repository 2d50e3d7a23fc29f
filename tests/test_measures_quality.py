"""The measure `quality`: CLIP-IQA's arithmetic, as Transformers computes it from the same checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_dual
from lite_media import clip_of, photographs, write_reel

from model_handlers.measures import category
from model_handlers.measures.quality import PROMPTS, Settings, goodness, measure
from model_handlers.measures.two_towers import load_towers
from model_handlers.measures.view import ClipView
from model_handlers.weights import WeightsError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    tiny_dual.make_clip(folder / "clip")
    tiny_dual.make_siglip(folder / "siglip")
    return folder


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    path = tmp_path_factory.mktemp("reels") / "mixed.arrow"
    return ClipView(clip_of(write_reel(path, list(photographs().values())), 5))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_quality_is_the_mean_of_the_frames_softmax_over_the_papers_antonyms(name, tiny, view):
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(tiny / name).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tiny / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / name)
    frames = view.reel.frames(view.uniform(4))
    with torch.inference_mode():
        pixels = processor(images=frames, return_tensors="pt")
        if name == "clip":
            tokens = tokenizer(["Good photo.", "Bad photo."], padding=True, return_tensors="pt")
        else:
            ids = [tokenizer(text)["input_ids"] for text in ("good photo.", "bad photo.")]
            tokens = {"input_ids": torch.tensor([[*row, *[tokenizer.pad_token_id] * (64 - len(row))] for row in ids])}
        each = model(**tokens, **pixels).logits_per_image.softmax(dim=-1)[:, 0]
    found = measure(Settings(weights=str(tiny / name), dtype="float32")).load()(view)
    assert list(found) == ["technical_quality"]
    assert found["technical_quality"] == pytest.approx(float(each.mean()), abs=1e-5)
    assert float(each.max() - each.min()) > 0.01, "frames that are alike would prove nothing"


@pytest.mark.parametrize(
    ("cosines", "scale", "expected"),
    [
        ([0.3, 0.3], 100.0, 0.5),
        ([0.25, 0.23], 100.0, 0.8807970779778823),
        ([0.23, 0.25], 100.0, 0.11920292202211757),
        ([1.0, -1.0], 10_000.0, 1.0),
        ([-1.0, 1.0], 10_000.0, 0.0),
    ],
)
def test_goodness_is_a_softmax_that_overflows_at_neither_end(cosines, scale, expected):
    assert goodness(np.array([cosines]), scale).tolist() == pytest.approx([expected], abs=1e-12)


def test_quality_and_category_of_the_same_weights_have_one_copy_of_them(tiny):
    weights = str(tiny / "clip")
    both = [Settings(weights=weights).checkpoint(), category.Settings(weights=weights).checkpoint()]
    kept = measure(Settings(weights=weights)).load()
    assert load_towers(both[0]) is load_towers(both[1])
    assert load_towers(both[0]) is kept.args[0]


def test_its_identity_changes_with_the_weights_and_the_frames(tiny):
    kinds = [
        Settings(weights=str(tiny / "clip")),
        Settings(weights=str(tiny / "siglip")),
        Settings(weights=str(tiny / "clip"), frames=8),
        Settings(),
    ]
    assert len({measure(settings).identity for settings in kinds}) == 4
    # Not asked of the network: the default is pinned.
    assert measure(kinds[3]).identity[0] == "32bd64288804d66eefd0ccbe215aa642df71cc41"
    assert measure(kinds[3]).identity[1] == PROMPTS


def test_missing_weights_and_wrong_settings_are_told(tmp_path):
    with pytest.raises(WeightsError, match="there is no directory"):
        measure(Settings(weights=str(tmp_path / "none")))
    with pytest.raises(ValueError, match=r"frames must be a whole number from 1 up, not 1\.5"):
        Settings(frames=1.5)
    with pytest.raises(ValueError, match="weights must be a text, not None"):
        Settings(weights=None)
