"""Vision towers as embedders: each gives the vectors of the whole model, of whole frames, and never another's."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable
from types import SimpleNamespace

import apache_beam as beam
import numpy as np
import pytest
import tiny_dual
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from lite_media import photographs, write_reel

from model_handlers import catalogue
from model_handlers.devices import choose_device
from model_handlers.settings import Settings
from model_handlers.tower_embedder import TowerEmbedder, image_features, load_tower, pooled, squeezed
from model_handlers.weights import WeightsError
from transforms.records import EmbedRequest, Shot
from transforms.reel import Reel

MAKERS: dict[str, Callable[[pathlib.Path], None]] = {
    "clip": tiny_dual.make_clip,
    "siglip": tiny_dual.make_siglip,
    "siglip2_naflex": tiny_dual.make_siglip2_naflex,
    "dinov2": tiny_dual.make_dinov2,
    "dinov3": tiny_dual.make_dinov3,
}
#: The class that is loaded, and the width of its vectors.
TOWERS = {
    "clip": ("CLIPVisionModelWithProjection", 16),
    "siglip": ("SiglipVisionModel", 32),
    "siglip2_naflex": ("Siglip2VisionModel", 32),
    "dinov2": ("Dinov2Model", 32),
    "dinov3": ("DINOv3ViTModel", 32),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    for name, make in MAKERS.items():
        make(folder / name)
    return folder


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reels")
    pictures = list(photographs().values())
    reels = [
        write_reel(folder / f"{number}.arrow", [first, last])
        for number, (first, last) in enumerate(itertools.pairwise(pictures))
    ]
    return [EmbedRequest(f"v{number}", Shot(0, 0, 2, 0.0, 1.0, 0.0, 0.5), reel) for number, reel in enumerate(reels)]


def embedder(folder: pathlib.Path, **more: object) -> TowerEmbedder:
    return TowerEmbedder(folder.name, Settings(weights=str(folder), dtype="float32", **more))


def answers(handler: TowerEmbedder, requests: list[EmbedRequest]) -> list:
    outcomes = list(handler.run_inference(requests, handler.load_model()))
    assert [outcome.failure for outcome in outcomes] == [None] * len(requests)
    return [outcome.answer for outcome in outcomes]


@pytest.mark.parametrize("name", MAKERS)
def test_boundary_frames_have_the_unit_vectors_of_the_whole_model(name, checkpoints, requests):
    import torch
    import transformers

    kind, width = TOWERS[name]
    whole = transformers.AutoModel.from_pretrained(checkpoints / name).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoints / name)
    square = {} if name == "siglip2_naflex" else {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    for request, answer in zip(requests, answers(embedder(checkpoints / name), requests), strict=True):
        pixels = processor(images=Reel.open(request.reel).frames([0, 1]), return_tensors="pt", **square)
        with torch.inference_mode():
            seen = whole.get_image_features(**pixels) if hasattr(whole, "get_image_features") else whole(**pixels)
        expected = torch.nn.functional.normalize(seen.pooler_output, dim=-1).numpy()
        assert np.asarray(answer).shape == (2, width)
        assert np.abs(np.asarray(answer) - expected).max() < 1e-5
        assert np.linalg.norm(answer, axis=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
        assert all(type(value) is float for value in answer[0])
    assert type(load_tower(embedder(checkpoints / name).settings, choose_device())).__name__ == kind


@pytest.mark.parametrize("name", MAKERS)
def test_a_shot_has_its_own_vectors_in_whatever_batch_it_comes(name, checkpoints, requests):
    handler = embedder(checkpoints / name)
    alone = [answers(handler, [request])[0] for request in requests]
    together = answers(handler, requests[::-1])[::-1]
    assert max(float(np.abs(np.subtract(*pair)).max()) for pair in zip(alone, together, strict=True)) < 1e-5
    # Pictures that differ have vectors that do: a mix-up would show.
    apart = [np.linalg.norm(np.subtract(one[0], other[0])) for one, other in itertools.pairwise(alone)]
    assert min(apart) > 0.05


@pytest.mark.parametrize("name", ["clip", "dinov2"])
def test_what_happens_at_the_sides_of_a_wide_frame_is_seen(name, checkpoints, tmp_path):
    import transformers

    plain = np.full((36, 96, 3), 128, np.uint8)
    marked = plain.copy()
    marked[:, :16] = (250, 10, 10)
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoints / name)
    cropped = processor(images=[plain, marked], return_tensors="pt")["pixel_values"]
    assert float((cropped[0] - cropped[1]).abs().max()) == 0.0
    reel = write_reel(tmp_path / "wide.arrow", [plain, marked])
    ((first, last),) = answers(
        embedder(checkpoints / name), [EmbedRequest("v", Shot(0, 0, 2, 0.0, 1.0, 0.0, 0.5), reel)]
    )
    assert float(np.linalg.norm(np.subtract(first, last))) > 0.01


def test_a_missing_reel_costs_its_own_request_on_the_runner(checkpoints, requests, tmp_path):
    lost = EmbedRequest("lost", requests[0].shot, str(tmp_path / "no.arrow"))
    expected = dict(zip((r.video_id for r in requests), answers(embedder(checkpoints / "clip"), requests), strict=True))
    seen: dict[str, tuple] = {}
    told = tmp_path / "told.jsonl"
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        _ = (
            pipeline
            | beam.Create([requests[0], lost, *requests[1:]])
            | RunInference(embedder(checkpoints / "clip"))
            | beam.Map(_line)
            | beam.io.WriteToText(str(told), shard_name_template="")
        )
    for line in told.read_text("utf-8").splitlines():
        video_id, answer, failure = json.loads(line)
        seen[video_id] = (answer, failure)
    assert seen.pop("lost") == (None, "ReelError")
    assert sorted(seen) == sorted(expected)
    assert all(failure is None for _, failure in seen.values())
    assert max(float(np.abs(np.subtract(seen[one][0], expected[one])).max()) for one in expected) < 1e-5


def _line(outcome) -> str:
    failure = outcome.failure.error_class if outcome.failure else None
    return json.dumps([outcome.request.video_id, outcome.answer, failure])


def test_the_text_half_is_not_loaded(checkpoints):
    for name in ("clip", "siglip", "siglip2_naflex"):
        tower = load_tower(embedder(checkpoints / name).settings, choose_device("float32"))
        assert [part for part, _ in tower.named_parameters() if part.startswith("text")] == []


def test_a_clip_whose_vision_part_misstates_its_projection_is_loaded_whole(checkpoints, tmp_path, requests):
    folder = tmp_path / "misstated"
    folder.mkdir()
    for file in (checkpoints / "clip").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["vision_config"]["projection_dim"] = 512
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    assert type(load_tower(embedder(folder).settings, choose_device("float32"))).__name__ == "CLIPModel"
    as_published = answers(embedder(checkpoints / "clip"), requests[:1])
    assert np.abs(np.subtract(answers(embedder(folder), requests[:1]), as_published)).max() < 1e-6


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (
            {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            (224, 224),
        ),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            (224, 224),
        ),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, (256, 256)),
        ({"size": {"height": 384, "width": 384}, "do_center_crop": None}, (384, 384)),
        ({"size": {"shortest_edge": 336}}, (336, 336)),
    ],
)
def test_frames_are_squeezed_to_what_the_checkpoint_would_have_cut_out(processor, expected):
    height, width = expected
    size = {"height": height, "width": width}
    assert squeezed(SimpleNamespace(**processor)) == {"do_resize": True, "do_center_crop": False, "size": size}


def test_a_processor_that_keeps_the_aspect_is_left_alone_and_one_without_a_size_refused():
    assert squeezed(SimpleNamespace(max_num_patches=256, size=None)) == {}
    with pytest.raises(WeightsError, match="SimpleNamespace names no size; add one"):
        squeezed(SimpleNamespace(size=None))


def test_features_are_the_pooled_ones_or_the_first_token():
    import torch
    from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

    tokens = torch.arange(12.0).reshape(1, 3, 4)
    row = torch.ones(1, 4)
    assert pooled(row) is row
    assert pooled(BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=row)) is row
    assert pooled(BaseModelOutputWithPooling(last_hidden_state=tokens)).tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert image_features(lambda **_: BaseModelOutput(last_hidden_state=tokens), {}).tolist() == [[0.0, 1.0, 2.0, 3.0]]


def test_a_checkpoint_without_pictures_is_told_in_one_line(tmp_path):
    with pytest.raises(WeightsError, match="there is no directory"):
        embedder(tmp_path / "nowhere").load_model()


def test_a_checkpoint_that_was_overwritten_in_its_bucket_is_not_loaded_for_the_one_that_was_configured(tmp_path, gcs):
    tiny_dual.make_clip(tmp_path)
    for file in tmp_path.iterdir():
        gcs.put(f"models/clip/{file.name}", file.read_bytes())
    entry = catalogue.embedder("clip-vit-h").changed(weights="gs://bucket/models/clip")
    assert entry.build().load()
    gcs.put("models/clip/config.json", (tmp_path / "config.json").read_bytes())
    with pytest.raises(WeightsError, match="gs://bucket/models/clip was written to after this job had begun; run"):
        entry.build().load()
    assert entry.changed().build().load()
