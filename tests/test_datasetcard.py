import glob
import json
import pathlib

import pyarrow.parquet as pq
import pytest
import yaml
from dataset_rows import failed_rows, video_rows
from deltalake import DeltaTable

from beam_pipeline.datasetcard import Figures, figures, write_card
from beam_pipeline.datasetcard_columns import COLUMNS
from transforms.committing import Committer, finalise
from transforms.lease import WriterLease
from transforms.schemas import TABLES
from transforms.tables import NoDataset, read_table

RECORD = {
    "run_id": "r1",
    "started_at": "2024-01-01T00:00:00",
    "config": {
        "profile": "lite",
        "rules": "panda70m",
        "splitting": {"threshold": 25.0},
        "stitching": {"min_event_s": 2.5},
        "embedder": "lite-embedder",
        "selector": "lite-selector",
        "teachers": ["lite-frame"],
        "abstain_below": None,
    },
    "models": [
        {"name": "lite-embedder", "model": "e", "revision": "1", "licence": "MIT"},
        {"name": "lite-frame", "model": "t|<b>", "revision": "2", "licence": "BSD"},
        {"name": "lite-selector", "model": "s", "revision": "3", "licence": "MIT"},
    ],
}


@pytest.fixture
def directory(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video_rows("a"), video_rows("b", n_clips=1), failed_rows("c")])
        finalise(tmp_path)
    return tmp_path


def front_matter(path):
    text = pathlib.Path(path).read_text(encoding="utf-8")
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_patterns_of_the_front_matter_match_just_the_tables(directory):
    matter = front_matter(write_card(directory))
    assert [config["config_name"] for config in matter["configs"]] == ["clips", "videos", "rejected", "failures"]
    assert [config.get("default", False) for config in matter["configs"]] == [True, False, False, False]
    for config in matter["configs"]:
        (files,) = config["data_files"]
        assert files["split"] == "train"
        rows = sum(pq.read_table(path).num_rows for path in glob.glob(f"{directory}/{files['path']}"))
        assert rows == read_table(directory, config["config_name"]).num_rows > 0


def test_figures_are_those_of_the_rows(directory):
    assert figures(directory) == Figures(
        videos={"ok": 2, "failed": 1},
        video_h=30 / 3600,
        clips=3,
        clip_h=24 / 3600,
        mean_clip_s=8.0,
        mean_words=3.0,
        mean_score=0.75,
        mean_lpips=None,
        abstained=0,
        rejected={"trim": 6},
        failures=3,
        chosen={"lite-frame": 3},
    )


def test_the_card_tells_how_the_dataset_was_made(directory):
    (directory / "runs").mkdir()
    (directory / "runs" / "r0.json").write_text("not JSON")
    (directory / "runs" / "r1.json").write_text(json.dumps(RECORD))
    lines = pathlib.Path(write_card(directory, title="My clips")).read_text(encoding="utf-8").splitlines()
    assert "# My clips" in lines
    assert "Profile `lite`, splitting rules `panda70m`." in lines
    assert "| lite-embedder | e | 1 | MIT | embedder |" in lines
    assert "| lite-frame | t&#124;&#60;b&#62; | 2 | BSD | teacher |" in lines
    assert "| lite-selector | s | 3 | MIT | selector |" in lines
    assert "| splitting | threshold | 25.0 |" in lines
    assert "| selection | abstain_below | None |" in lines
    assert "| chosen captions of lite-frame | 3 (100%) |" in lines


def test_the_card_warns_of_the_logs_checkpoints(directory):
    text = pathlib.Path(write_card(directory)).read_text(encoding="utf-8")
    assert "**Don't use `**/*.parquet`**" in text
    DeltaTable(str(directory / "clips")).create_checkpoint()
    everything = {pathlib.Path(path).parent.name for path in glob.glob(f"{directory}/**/*.parquet", recursive=True)}
    assert everything == {*TABLES, "_delta_log"}


def test_every_column_is_described():
    assert {name: list(columns) for name, columns in COLUMNS.items()} == {
        name: ["", *schema.names] for name, schema in TABLES.items()
    }


def test_an_empty_dataset_has_a_card_too(tmp_path):
    with WriterLease(tmp_path, "r1"):
        finalise(tmp_path)
    text = pathlib.Path(write_card(tmp_path)).read_text(encoding="utf-8")
    assert "| videos | 0 (none) |" in text
    assert "| mean length of a clip | none |" in text
    assert front_matter(tmp_path / "README.md")["size_categories"] == ["n<1K"]


def test_there_is_no_card_without_a_dataset(tmp_path):
    with pytest.raises(NoDataset):
        write_card(tmp_path)
