"""The models that a profile chooses: names, copies from elsewhere, models of one's own, and how mistakes are told."""

import pytest

from beam_pipeline.choosing import Choice, choose
from beam_pipeline.config import ConfigError, load_config
from model_handlers import catalogue
from model_handlers.weights import WeightsError
from transforms.captioning import Teacher

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_name_is_the_catalogues_entry():
    assert choose("teacher", "blip2-opt-2.7b") == Choice(catalogue.teacher("blip2-opt-2.7b"))


def test_a_copy_from_elsewhere_is_the_same_model_with_its_licence_and_its_distances(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    choice = choose("embedder", {"name": "clip-vit-h", "weights": str(tmp_path)})
    original = catalogue.embedder("clip-vit-h")
    assert (choice.entry.name, choice.entry.licence, choice.entry.thresholds) == (
        "clip-vit-h",
        "MIT",
        original.thresholds,
    )
    assert choice.entry.model == str(tmp_path) and choice.entry.revision.startswith("sha256 ")


def test_another_model_of_a_family_has_a_licence_and_distances_of_its_own():
    asked = {"like": "clip-vit-h", "name": "ours", "weights": "our-org/tower", "revision": COMMIT}
    entry = choose("embedder", asked).entry
    assert (entry.licence, entry.thresholds, entry.revision) == ("unknown", None, COMMIT)
    assert entry.restricted == "nothing says what its licence allows; add licence: and commercial: true or false"
    told = choose("embedder", {**asked, "licence": "CC-BY-4.0", "commercial": True}).entry
    assert (told.licence, told.restricted) == ("CC-BY-4.0", "")


def test_one_model_may_be_several_teachers_with_inputs_and_workers_of_their_own():
    seen = choose("teacher", {"like": "qwen3-vl-2b", "name": "qwen-seen", "inputs": "V", "min_ram": "30GB"})
    assert (seen.entry.inputs, seen.entry.model) == ("V", catalogue.teacher("qwen3-vl-2b").model)
    assert seen.entry.licence == "Apache-2.0" and seen.hints == {"min_ram": "30GB"}
    assert seen.entry.prompt_id != catalogue.teacher("qwen3-vl-2b").prompt_id


def test_a_prompt_of_ones_own_travels_with_the_settings(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "short:\n  version: 2\n  request: Say it briefly.\n  request_with_text: |\n    {title}\n    Briefly.\n"
    )
    with file.open("a") as more:
        more.write("  introductions: {title: 'Title:'}\n")
    entry = choose("teacher", {"name": "qwen3-vl-2b", "inputs": "V", "prompt": f"{file}#short"}).entry
    file.unlink()
    assert entry.settings.asked().request == "Say it briefly."
    assert entry.prompt_id.startswith("short-2-")


def test_other_weights_need_a_commit_of_their_own_and_bring_no_licence_along():
    with pytest.raises(WeightsError, match="meta/other needs a pinned revision"):
        choose("teacher", {"name": "qwen3-vl-2b", "weights": "meta/other"})
    entry = choose("teacher", {"name": "qwen3-vl-2b", "weights": "meta/other", "revision": COMMIT}).entry
    assert (entry.licence, entry.revision) == ("unknown", COMMIT) and entry.restricted != ""


def test_files_that_are_moved_are_the_same_model(tmp_path):
    entries = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text("weights")
        entries.append(choose("teacher", {"name": "qwen3-vl-2b", "weights": str(folder)}).entry)
    assert entries[0].model != entries[1].model and entries[0].identity == entries[1].identity
    prints = [Teacher(entry.name, None, entry.model, entry.revision, entry.prompt_id).fingerprint for entry in entries]
    assert prints[0] == prints[1]
    (tmp_path / "there" / "model.safetensors").write_text("trained on")
    later = choose("teacher", {"name": "qwen3-vl-2b", "weights": str(tmp_path / "there")}).entry
    assert later.identity != entries[0].identity


def test_a_teacher_that_reads_text_alone_is_skipped_where_there_is_none():
    assert choose("teacher", {"name": "qwen2.5-7b-tags", "inputs": "S-M"}).entry.needs_text
    assert not choose("teacher", {"name": "qwen2.5-7b-tags", "inputs": "V-S"}).entry.needs_text


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("teacher", {"name": "qwen3-vl-2b", "inputs": "S-M"}, "inputs must hold V for qwen3-vl-2b, which sees"),
        ("teacher", {"name": "blip-base", "inputs": "V-S"}, "inputs must be V for blip-base"),
        ("teacher", {"name": "../x", "like": "blip-base"}, "teacher needs a name of letters, digits, dots and dashes"),
        ("selector", {"name": "umt-l16", "tokenizer": 5}, "umt-l16: tokenizer must be a text, not 5"),
        ("teacher", {"name": "qwen3-vl-2b", "frmaes": 3}, "there is no key 'frmaes'; did you mean 'frames'?"),
        ("teacher", {"name": "qwen3-vl-2b", "frames": 0}, "frames must be a whole number from 1 up, not 0"),
        ("teacher", {"name": "qwen3-vl-2b", "inputs": "VS"}, "inputs must be one of V, V-S, V-M, V-S-M, S-M, not 'VS'"),
        ("teacher", {"name": "qwen3-vl-2b", "dtype": "fp16"}, "dtype must be one of auto"),
        ("teacher", {"name": "qwen3-vl-2b", "prompt": "video-sentnce"}, "did you mean 'video-sentence'?"),
        ("teacher", {"name": "qwen3-vl-2b", "accelerator": "a100"}, "accelerator must be like type:nvidia-l4"),
        ("teacher", {"like": "qwen3"}, "A teacher of your own says like: which of them it resembles"),
        ("teacher", {"weights": "x"}, "teacher needs a name, or like: with one of the catalogue"),
        ("teacher", 3, "teacher must be a name of the catalogue or a mapping with like:, not 3"),
        ("teacher", "endpoint", "endpoint needs weights: write {name: endpoint, weights: ...}"),
        ("teacher", {"name": "endpoint", "weights": "m", "url": "ftp://x"}, "url must be an address"),
        ("teacher", {"name": "endpoint", "weights": "m"}, "url"),
        ("teacher", {"name": "florence2-base", "prompt": "detailed"}, "prompt must be one of"),
        ("selector", "umt-l16", "umt-l16 needs weights: write {name: umt-l16, weights: ...} in a --config file"),
        ("teacher", "student", "student needs weights: train one: reelscribe train student DATASET --output models/"),
        ("selector", {"name": "conse", "frames": 3}, "nothing of conse can be changed, not even frames"),
        ("embedder", {"name": "clip-vit-h", "licence": 3}, "licence is a text and commercial is true or false"),
    ],
)
def test_a_mistake_is_told_in_one_line(kind, value, message):
    with pytest.raises(ValueError) as raised:
        choose(kind, value)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_weights_that_are_opened_as_pickles_need_their_digest(tmp_path):
    path = tmp_path / "l16.pth"
    path.write_bytes(b"weights")
    digest = "9c14ef1d1f9b8e9b5a5f3f1d1c0c0d0f6f1c0e5c7c6a9a4b0c1d2e3f4a5b6c7d"
    with pytest.raises(
        WeightsError, match=r"only opened with its SHA-256 pinned; add sha256: [0-9a-f]{64} if you trust"
    ):
        choose("selector", {"name": "umt-l16", "weights": str(path)})
    entry = choose("selector", {"name": "umt-l16", "weights": str(path), "sha256": digest}).entry
    assert entry.revision == f"sha256 {digest[:16]}"


def test_an_embedder_that_nobody_calibrated_needs_its_distances(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: lite\nembedder: dinov2-base\n")
    with pytest.raises(ConfigError, match="nobody has calibrated the distances of the embedder dinov2-base"):
        load_config(str(path))
    distances = "transition_distance: 1.1, stitch_distance: 0.7, still_distance: 0.2, redundant_distance: 0.4"
    path.write_text(f"extends: lite\nembedder: dinov2-base\nstitching: {{{distances}}}\n")
    assert load_config(str(path)).stitching.stitch_distance == 0.7


def test_every_built_in_profile_is_complete_but_for_weights_that_only_a_user_has():
    assert [load_config(name).profile for name in ("lite", "modern", "small")] == ["lite", "modern", "small"]
    assert load_config("panda70m", complete=False).selector.name == "umt-l16"
    for name in ("lite", "modern", "small"):
        assert load_config(name, commercial_only=True).profile == name
    with pytest.raises(ConfigError, match="--commercial-only refuses videollama3-2b"):
        load_config("panda70m", complete=False, commercial_only=True)
