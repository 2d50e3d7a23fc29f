"""Where checkpoints may stand, and how a mistake is told before a worker starts."""

import pytest

from model_handlers.checkpoints import check, files_of, is_hub_id, locate, version_of
from model_handlers.weights import WeightsError

COMMIT = "cc594898137f460bfe9f0759e9844b3ce807cfb5"


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_directory_is_known_by_the_digest_of_what_is_loaded_from_it(tmp_path):
    folder = write(tmp_path / "model", config__json="{}", model__safetensors="weights", notes__md="hello")
    assert files_of(str(folder)) == ["config.json", "model.safetensors"]
    before = version_of(str(folder))
    write(folder, notes__md="something else", pytorch_model__bin="pickled")
    assert version_of(str(folder)) == before
    write(folder, model__safetensors="trained on")
    assert version_of(str(folder)) != before
    assert before.startswith("sha256 ") and len(before) == len("sha256 ") + 16


def test_originals_beside_the_files_are_no_part_of_a_checkpoint(tmp_path):
    folder = write(tmp_path / "model", config__json="{}")
    write(folder / "original", consolidated__safetensors="twice")
    write(folder / "qformer_tokenizer", tokenizer__json="{}")
    assert files_of(str(folder)) == ["config.json", "qformer_tokenizer/tokenizer.json"]


def test_a_hub_model_is_loaded_at_its_commit_and_never_with_its_code():
    place = locate("Qwen/Qwen2.5-VL-7B-Instruct", COMMIT)
    assert (place.path, place.hub) == (
        "Qwen/Qwen2.5-VL-7B-Instruct",
        {"trust_remote_code": False, "revision": COMMIT},
    )
    assert version_of("Qwen/Qwen2.5-VL-7B-Instruct", COMMIT) == COMMIT


@pytest.mark.parametrize(
    ("weights", "revision", "message"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "", "needs a pinned revision: a commit's 40 digits"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "main", "needs a pinned revision"),
        ("models/with/no/such/folder", "", "there is no directory models/with/no/such/folder"),
        ("../elsewhere", "", "there is no directory ../elsewhere"),
        ("{tmp}", "", "holds no config.json; name a directory that save_pretrained wrote"),
    ],
)
def test_weights_that_cannot_be_meant_are_told_in_one_line(tmp_path, weights, revision, message):
    with pytest.raises(WeightsError) as raised:
        check(weights.format(tmp=tmp_path), revision)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_directory_that_looks_like_a_hub_id_is_a_directory(tmp_path, monkeypatch):
    write(tmp_path / "org" / "model", config__json="{}")
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("org/model")
    assert locate("org/model").hub == {"trust_remote_code": False}


def test_a_directory_of_the_workers_image_is_known_by_what_the_user_calls_its_contents(tmp_path):
    absent = str(tmp_path / "blip")
    assert version_of(absent, "2026-05") == "named 2026-05"
    with pytest.raises(WeightsError, match="blip on this machine; the image must hold it under this name"):
        locate(absent, "2026-05")
    (tmp_path / "blip").mkdir()
    (tmp_path / "blip" / "config.json").write_text("{}")
    assert version_of(absent, "2026-05") == "named 2026-05"
    assert locate(absent, "2026-05").path == absent
    # The hub's commit says nothing of a directory.
    assert version_of(absent, "a" * 40) == version_of(absent, "")
