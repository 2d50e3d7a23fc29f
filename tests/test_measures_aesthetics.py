"""The measure `aesthetic`: published layouts of the head, each as torch computes it, and no file that is not meant."""

from __future__ import annotations

import dataclasses
import pathlib
import pickle

import numpy as np
import pytest
import tiny_dual
from lite_media import clip_of, photographs, write_reel

from model_handlers.measures import aesthetics
from model_handlers.measures.aesthetics import Settings, find_head, head_of, measure, read_head
from model_handlers.measures.view import ClipView
from model_handlers.weights import WeightsError, digest

#: Of the tiny CLIP's vectors.
WIDTH = 16


class Published:
    """Stands in for the module of the published code, whose weights lie under `layers`."""

    def __init__(self, name: str, width: int = WIDTH):
        import torch
        from torch import nn

        torch.manual_seed(3)
        between = [nn.ReLU()] if name == "relu" else []
        self.network = (
            nn.Linear(width, 1)
            if name == "linear"
            else nn.Sequential(
                *(nn.Linear(width, 24), *between, nn.Dropout(0.2), nn.Linear(24, 12), *between, nn.Dropout(0.2)),
                *(nn.Linear(12, 8), *between, nn.Dropout(0.1), nn.Linear(8, 4), *between, nn.Linear(4, 1)),
            )
        ).eval()
        prefix = "" if name == "linear" else "layers."
        self.tensors = {f"{prefix}{key}": value for key, value in self.network.state_dict().items()}

    def save(self, path: pathlib.Path) -> str:
        import torch
        from safetensors.torch import save_file

        if path.suffix == ".pth":
            torch.save(self.tensors, path)
        else:
            save_file(self.tensors, path)
        return str(path)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "clip"
    tiny_dual.make_clip(folder)
    return str(folder)


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    path = tmp_path_factory.mktemp("reels") / "mixed.arrow"
    return ClipView(clip_of(write_reel(path, list(photographs().values())), 5))


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["linear", "plain", "relu"])
def test_the_rating_is_that_of_the_published_network_on_unit_vectors(name, kind, clip, view, tmp_path):
    import torch
    import transformers

    published = Published(name)
    head = published.save(tmp_path / f"head{kind}")
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(clip)
    with torch.inference_mode():
        pixels = processor(images=view.reel.frames(view.uniform(4)), return_tensors="pt")
        vectors = torch.nn.functional.normalize(model.get_image_features(**pixels).pooler_output, dim=-1)
        each = published.network(vectors)[:, 0]
    sha256 = digest(head) if kind == ".pth" else ""
    found = measure(Settings(head, sha256, weights=clip, dtype="float32")).load()(view)
    assert list(found) == ["aesthetic"]
    assert found["aesthetic"] == pytest.approx(float(each.mean()), abs=1e-5)
    assert float(each.max() - each.min()) > 1e-4, "frames that are alike would prove nothing"


def test_the_two_sequences_of_the_published_code_are_told_apart(tmp_path):
    assert sorted(Published("plain").tensors)[::2] == [f"layers.{place}.bias" for place in (0, 2, 4, 6, 7)]
    for name, relu in (("plain", False), ("relu", True), ("linear", False)):
        head = read_head(Published(name).save(tmp_path / f"{name}.safetensors"))
        assert (head.relu, head.width, len(head.layers)) == (relu, WIDTH, 1 if name == "linear" else 5)


def test_half_precision_heads_rate_in_single(tmp_path):
    from safetensors.torch import save_file

    tensors = {key: value.half() for key, value in Published("linear").tensors.items()}
    save_file(tensors, tmp_path / "half.safetensors")
    (layer,) = read_head(str(tmp_path / "half.safetensors")).layers
    assert [part.dtype for part in layer] == [np.float32, np.float32]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.0.scale": (24,)}, "nobody knows its layers.0.scale"),
        ({"model.weight": (1, 1)}, "nobody knows its model.weight"),
        ({"layers.8.weight": (1, 1), "layers.8.bias": (1,)}, "its layers are layers.0.bias, layers.0.weight, "),
        ({"layers.7.bias": None}, "its layers are layers.0.bias, layers.0.weight, "),
        ({"layers.2.weight": (12, 23)}, r"layers of 24 x 16, 12 x 23, 8 x 12, 4 x 8, 1 x 4 do not lead"),
        ({"layers.7.weight": (2, 4), "layers.7.bias": (2,)}, "2 x 4 do not lead from a vector to one number"),
        ({"layers.4.bias": (7,)}, "do not lead from a vector to one number"),
        ({"layers.4.weight": (8,)}, "do not lead from a vector to one number"),
    ],
)
def test_tensors_that_make_no_published_head_are_refused_in_one_line(change, message):
    tensors = {key: value.numpy() for key, value in Published("plain").tensors.items()}
    for key, shape in change.items():
        tensors |= {key: np.zeros(shape or (), np.float32)}
        if shape is None:
            del tensors[key]
    with pytest.raises(WeightsError, match=message):
        head_of(tensors, "head.pth")


def test_a_head_for_another_clip_is_refused_in_one_line(clip, tmp_path):
    head = Published("plain", 768).save(tmp_path / "head.safetensors")
    with pytest.raises(WeightsError, match=r"reads vectors of 768 numbers, .* makes 16; set weights: to the CLIP"):
        measure(Settings(head, weights=clip)).load()


def test_a_pth_file_is_opened_by_its_digest_alone(tmp_path):
    head = Published("linear").save(tmp_path / "head.pth")
    with pytest.raises(WeightsError, match=f"opened by its digest alone: write sha256: {digest(head)}"):
        find_head(head)
    assert find_head(head, digest(head)) == head
    with pytest.raises(WeightsError, match=f"but {'0' * 64} is pinned; fetch it again"):
        find_head(head, "0" * 64)


@pytest.mark.parametrize("name", list(aesthetics.PUBLISHED))
def test_a_file_with_a_published_name_must_be_the_published_one(name, tmp_path):
    head = Published("linear").save(tmp_path / name)
    with pytest.raises(WeightsError, match=f"but {aesthetics.PUBLISHED[name]} is pinned"):
        find_head(head)


def test_a_pth_file_that_would_run_something_is_not_run(tmp_path):
    path, told = tmp_path / "head.pth", tmp_path / "ran"

    class Runs:
        def __reduce__(self):
            return (pathlib.Path.touch, (told,))

    path.write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(WeightsError, match="can't be read"):
        read_head(find_head(str(path), digest(str(path))))
    assert not told.exists()


def test_a_head_that_changed_since_the_job_was_configured_is_refused(clip, tmp_path):
    head = Published("linear").save(tmp_path / "head.safetensors")
    made = measure(Settings(head, weights=clip))
    Published("plain").save(tmp_path / "head.safetensors")
    with pytest.raises(WeightsError, match="is pinned; fetch it again"):
        made.load()


def test_its_identity_changes_with_head_weights_and_frames(clip, tmp_path):
    linear, plain = (Published(name).save(tmp_path / f"{name}.safetensors") for name in ("linear", "plain"))
    first = Settings(linear, weights=clip)
    kinds = [first, dataclasses.replace(first, head=plain), dataclasses.replace(first, frames=2), Settings(linear)]
    assert len({measure(settings).identity for settings in kinds}) == 4
    (tmp_path / "copy.safetensors").write_bytes(pathlib.Path(linear).read_bytes())
    copied = dataclasses.replace(first, head=str(tmp_path / "copy.safetensors"))
    assert measure(copied).identity == measure(first).identity


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": ""}, "aesthetic needs head: a .safetensors or .pth file"),
        ({"head": "head.pkl"}, "not 'head.pkl'"),
        ({"head": None}, "not None"),
        ({"head": "h.pth", "sha256": "12"}, "sha256 must be 64 hexadecimal digits, not '12'"),
        ({"head": "h.pth", "frames": 0}, "frames must be a whole number from 1 up, not 0"),
        ({"head": "h.pth", "dtype": "half"}, "dtype must be one of auto"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_in_words(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_a_missing_head_is_told(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no aesthetic head at .*; docs/measures-models.md says where"):
        measure(Settings(str(tmp_path / "none.safetensors")))
