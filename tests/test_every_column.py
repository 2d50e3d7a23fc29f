"""Everything at once: real videos, every measure, hygiene, duplicates, clip files and speech, and nothing stays empty.

Models whose weights no package carries are small ones drawn at random: their columns are filled, and worth nothing.
"""

import json
import pathlib
import shutil

import pyarrow.compute as pc
import pytest
import tiny_dual
import tiny_whisper
import yaml
from test_hearing import SAYS
from test_measures_aesthetics import Published
from test_measures_nsfw import make_classifier

from beam_pipeline.cli import main
from beam_pipeline.report import write_report
from beam_pipeline.verify import audit
from transforms.schemas import CLIPS
from transforms.tables import read_table

CLIPS_OF_PANDA = 8


def write_config(folder: pathlib.Path, shared: pathlib.Path) -> str:
    tiny_dual.make_clip(folder / "clip")
    clip, head = {"weights": str(folder / "clip")}, Published("plain").save(folder / "head.safetensors")
    classifier = make_classifier(folder / "classifier", ["normal", "nsfw"])
    whisper = tiny_whisper.make_whisper(folder / "whisper", SAYS)
    values = {
        "extends": "lite",
        "measures": {
            "all": True,
            "lpips": str(shared / "models" / "lpips_alex_v0.1.safetensors"),
            "quality": clip,
            "aesthetic": {**clip, "head": head},
            "nsfw": {"weights": classifier},
        },
        "hygiene": {"stock": True, "harmful": True, "language": True},
        "duplicates": True,
        "speech": whisper,
        "write_clips": "copy",
    }
    path = folder / "everything.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_with_everything_on_every_column_is_filled_and_verify_report_and_exports_take_it(shared_dir, tmp_path, capsys):
    videos = tmp_path / "in"
    videos.mkdir()
    for path in sorted((shared_dir / "videos" / "panda70m").glob("*.mp4"))[:CLIPS_OF_PANDA]:
        shutil.copy(path, videos)
    shutil.copy(shared_dir / "videos" / "katna" / "pos_video.mp4", videos)  # It has sound.
    first = sorted(videos.iterdir())[0]
    shutil.copy(first, videos / "copy.mp4")
    (videos / "copy.json").write_text(json.dumps({"title": "A copy"}))
    command = ["curate", "--input", str(videos), "--output", str(tmp_path / "set"), "--config"]
    command.append(write_config(tmp_path, shared_dir))
    assert main(command) == 0
    told = capsys.readouterr().out
    dataset = str(tmp_path / "set")
    assert audit(dataset).breaches == []
    clips = read_table(dataset, "clips")
    assert [name for name in CLIPS.names if clips[name].null_count == clips.num_rows] == []
    # What may be null in some rows is so for a reason: one frame, no sound, nothing to tell a mark by.
    always = ["motion", "brightness", "border_share", "crop", "text_share", "category", "aesthetic", "nsfw"]
    assert [name for name in always if clips[name].null_count] == []
    assert set(pc.list_value_length(clips["crop"]).to_pylist()) == {4}
    assert clips.num_rows - clips["duplicate_of"].null_count >= 1
    assert all(line in told for line in ("scores ", "desirable_filtering", "duplicates "))
    page = pathlib.Path(write_report(dataset)).read_text()
    assert page.count('<figure class="score"') >= 20
    for kind in ("panda70m-csv", "webdataset", "tfrecord"):
        assert main(["export", dataset, "--to", kind, "--output", str(tmp_path / kind)]) == 0
    assert main(command) == 0
    assert f"{CLIPS_OF_PANDA + 2} in: 0 committed, {CLIPS_OF_PANDA + 2} unchanged" in capsys.readouterr().out
