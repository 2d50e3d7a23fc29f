"""A trained version of Unmasked Teacher is a directory, here, in a bucket or in the workers' image."""

import dataclasses
import os
import pathlib

import pytest
from lite_media import clip_of, write_reel
from umt_weights_maker import TINY, pictures, retrieval_tensors, write_tokenizer

from model_handlers.umt_selector import UmtSelector, UmtSettings, tokenizer_folder
from model_handlers.umt_weights import canonical, untold_sizes, write_folder
from model_handlers.weights import WeightsError
from transforms.records import Candidate, CaptionedClip


@pytest.fixture
def base(tmp_path):
    """A version with weights that stay tame."""
    return make_version(tmp_path / "base")


def make_version(folder: pathlib.Path) -> str:
    write_tokenizer(folder)
    write_folder(str(folder), TINY, canonical(retrieval_tensors(gain=1.0)))
    return str(folder)


def scores(weights: str, reel: str) -> tuple[float, ...]:
    candidates = tuple(Candidate(text, "m", "r", "p", text, "f") for text in ("a dog", "a red car"))
    handler = UmtSelector("umt-l16", UmtSettings(weights, frames=4))
    (outcome,) = handler.run_inference([CaptionedClip(clip_of(reel, 4), candidates, (), ())], handler.load_model())
    assert outcome.failure is None
    return outcome.answer


def test_a_version_in_a_bucket_is_loaded_with_its_own_tokenizer(base, gcs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in os.listdir(base):
        with open(os.path.join(base, name), "rb") as file:
            gcs.put(f"selector/v1/{name}", file.read())
    settings = UmtSettings("gs://bucket/selector/v1")
    first = settings.version()
    assert first.startswith("objects ")
    assert sorted(os.listdir(tokenizer_folder(settings))) == ["config.json", "umt.safetensors", "vocab.txt"]
    reel = write_reel(tmp_path / "r.arrow", pictures("film a", 4))
    assert scores("gs://bucket/selector/v1", reel) == scores(base, reel)
    gcs.put("selector/v1/selector.json", "{}")
    assert settings.version() != first


def test_a_versions_digest_changes_with_each_of_its_files(base):
    settings = UmtSettings(base)
    first = settings.version()
    assert first.startswith("sha256 ")
    # What pins the file alone says nothing of what stands beside it.
    assert dataclasses.replace(settings, sha256="0" * 64).version() == first
    pathlib.Path(base, "selector.json").write_text("{}")
    second = settings.version()
    pathlib.Path(base, "README.md").write_text("A card.")
    assert settings.version() == second != first


def test_a_directory_of_the_workers_image_is_known_by_what_it_is_called():
    settings = UmtSettings("/nowhere/selector", revision="v1")
    assert settings.version() == "named v1"
    with pytest.raises(WeightsError, match="no directory /nowhere/selector on this machine; the image must hold it"):
        settings.file()


def test_a_tokenizer_that_is_named_comes_before_the_versions_own(base, tmp_path):
    other = write_tokenizer(tmp_path)
    assert tokenizer_folder(UmtSettings(base)) == base
    assert tokenizer_folder(UmtSettings(base, tokenizer=other)) == other


@pytest.mark.parametrize("weights", ["nowhere", "models/selector", "l16.bin"])
def test_weights_that_are_nowhere_are_told_in_one_line(weights):
    for ask in (UmtSettings(weights).version, UmtSettings(weights).file):
        with pytest.raises(WeightsError, match=rf"there are no weights at {weights}; name a .pth or .safetensors file"):
            ask()


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("{", "config.json can't be read: "),
        ("[]", "must hold a JSON object"),
        ('{"side": "224"}', "side in .* must be a whole number from 1 to 4096, not '224'"),
        ('{"side": true}', "side in .* must be a whole number from 1 to 4096, not True"),
        ('{"head_width": 0}', "head_width in .* not 0"),
        ('{"side": null}', "side in .* not None"),
        ('{"trained_frames": 1e9}', "trained_frames in .* not 1000000000.0"),
        ('{"side": 1000000}', "side in .* not 1000000"),
    ],
)
def test_sizes_that_cant_be_meant_are_refused(tmp_path, written, fault):
    (tmp_path / "config.json").write_text(written)
    with pytest.raises(WeightsError, match=fault):
        untold_sizes(str(tmp_path))


def test_sizes_are_as_published_unless_a_version_says_otherwise(tmp_path):
    (tmp_path / "config.json").write_text('{"side": 32, "trained_frames": null, "patch": 3}')
    assert untold_sizes(str(tmp_path)) == {"side": 32, "trained_frames": None}
