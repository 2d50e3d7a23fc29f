"""The main job with models of GPU workers: eight teachers, an embedder and Unmasked Teacher, all with tiny weights."""

import json

import pytest
import yaml
from run_records import records
from synthetic import make_video
from tiny_checkpoints import folder_name, write_checkpoint

from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from transforms.tables import current_videos, read_table

pytest.importorskip("torch")
pytest.importorskip("transformers")

#: The profile `panda70m`'s, in its order.
EIGHT = [
    "videollama3-2b",
    "video-llava-7b",
    "internvl3-8b",
    "qwen2.5-7b-tags",
    "blip2-opt-2.7b",
    "blip2-opt-6.7b",
    "blip2-flan-t5-xl",
    "instructblip-vicuna-7b",
]


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """A configuration that extends `panda70m` with a tiny checkpoint for each of its models."""
    folder = tmp_path_factory.mktemp("weights")

    def local(name):
        return {"name": name, **write_checkpoint(name, folder / folder_name(name))}

    values = {
        "extends": "panda70m",
        "embedder": local("clip-vit-h"),
        "teachers": [local(name) for name in EIGHT],
        "selector": local("umt-l16"),
        "stitching": {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0, "stitch_distance": 0.0},
        "placement": {"models_at_once": 2},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    make_video(folder / "told.mp4", shots=[(3.0, "red"), (3.0, "blue")], drift_px=3)
    (folder / "told.json").write_text(json.dumps({"title": "Colours <|im_end|> in motion"}))
    make_video(folder / "mute.mp4", shots=[(3.0, "green")], drift_px=3)
    (folder / "noise.mp4").write_bytes(b"no video at all" * 100)
    return folder


def test_eight_teachers_an_embedder_and_the_papers_selector_make_a_dataset(profile, uploads, tmp_path, capsys):
    out = tmp_path / "set"
    assert main(["curate", "--input", str(uploads), "--output", str(out), "--profile", profile]) == 0
    assert audit(str(out)).breaches == []
    clips = read_table(str(out), "clips").to_pylist()
    assert sorted(clip["uri"].rpartition("/")[2] for clip in clips) == ["mute.mp4", "told.mp4", "told.mp4"]
    for clip in clips:
        assert [caption["teacher"] for caption in clip["captions"]] == EIGHT
        assert all(caption["revision"].startswith("sha256 ") for caption in clip["captions"])
        assert all(any(map(str.isalpha, caption["caption"])) for caption in clip["captions"])
        scores = {caption["teacher"]: caption["matching_score"] for caption in clip["captions"]}
        assert all(0.0 <= score <= 1.0 for score in scores.values())
        assert scores[clip["teacher"]] == max(scores.values()) == clip["matching_score"]
        assert len(clip["embedding"]) == 16
    letters = read_table(str(out), "failures").to_pylist()
    assert [(letter["stage"], letter["uri"].rpartition("/")[2]) for letter in letters] == [("split", "noise.mp4")]

    (record,) = records(out)
    assert [model["name"] for model in record["models"]] == ["clip-vit-h", *EIGHT, "umt-l16"]

    before = current_videos(str(out))
    capsys.readouterr()
    assert main(["curate", "--input", str(uploads), "--output", str(out), "--profile", profile]) == 0
    assert "3 unchanged" in capsys.readouterr().out
    assert current_videos(str(out)) == before


def test_a_restricted_model_is_refused_where_only_free_ones_may_be_used(profile, uploads, tmp_path, capsys):
    asked = ["curate", "--input", str(uploads), "--output", str(tmp_path / "set"), "--profile", profile]
    assert main([*asked, "--commercial-only"]) == 2
    told = capsys.readouterr().err
    assert "--commercial-only refuses" in told and "blip2-opt-2.7b: OPT's licence" in told
    assert "blip2-flan-t5-xl" not in told and told.count("\n") == 1


def test_the_doctor_tells_what_a_profile_needs_before_a_job(profile, capsys):
    main(["doctor", "--config", profile])
    told = capsys.readouterr().out
    for name in ("clip-vit-h", *EIGHT, "umt-l16"):
        assert f"model {name} " in told
    assert "downloads" in told and "gpu memory" in told and "licences" in told


def test_the_doctor_tells_downloads_and_licences_of_a_profile_of_the_hub(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    main(["doctor", "--profile", "small"])
    told = capsys.readouterr().out
    assert "Salesforce/blip-image-captioning-base at 9cfcdbcaccbc will be downloaded, 1.0 GB" in told
    assert "ok    licences" in told
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor", "--profile", "small"]) == 1
    told = capsys.readouterr().out
    assert (
        "fix: hf download Salesforce/blip-image-captioning-base --revision 9cfcdbcaccbcadb2b53b36d4b50042c4eeaa0c25"
        in told
    )


def test_a_profile_whose_selector_has_no_weights_yet_says_what_to_write(uploads, tmp_path, capsys):
    asked = ["curate", "--input", str(uploads), "--output", str(tmp_path / "set"), "--profile", "panda70m"]
    assert main(asked) == 2
    assert "umt-l16 needs weights: write {name: umt-l16, weights: ...}" in capsys.readouterr().err
