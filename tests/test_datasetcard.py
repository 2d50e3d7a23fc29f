import dataclasses
import glob
import json
import pathlib
import re

import pyarrow.parquet as pq
import pytest
import yaml
from dataset_rows import failed_rows, video_rows
from deltalake import DeltaTable

from beam_pipeline.config import ConfigError, load_config
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
        duplicates=0,
        scores=(),
        preview=tuple(
            {
                "video_id": video_id, "start_s": 1.0, "duration_s": 8.0, "caption": "a dog runs",
                "teacher": "lite-frame", "matching_score": 0.75, "abstained": False, "max_running_lpips": None,
                "duplicate_of": None,
            }
            for video_id in ("a", "b")
        ),
    )  # fmt: skip


def test_the_card_shows_a_clip_of_each_of_some_videos_and_nothing_in_it_is_markup(tmp_path):
    names = [f"v{number:02d}" for number in range(20)]
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video_rows(name, caption="a <b>dog</b> | runs") for name in names])
        finalise(tmp_path)
    lines = pathlib.Path(write_card(tmp_path)).read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if "dog" in line]
    assert [line.split(" | ")[0] for line in shown] == [f"| v{number:02d}" for number in (0, 2, 5, 7, 10, 12, 15, 17)]
    caption = "a &#60;b&#62;dog&#60;/b&#62; &#124; runs"
    assert shown[0] == f"| v00 | 0:00:01.000 | 8.0 | {caption} | lite-frame | 0.75 |"


def test_the_card_says_the_licence_and_the_title_that_were_asked_for(directory):
    assert front_matter(write_card(directory))["license"] == "other"
    card = {"title": "Our clips", "license": "cc-by-4.0", "license_link": "https://example.org/terms"}
    (directory / "runs").mkdir()
    (directory / "runs" / "r1.json").write_text(json.dumps({**RECORD, "config": {**RECORD["config"], "card": card}}))
    matter = front_matter(write_card(directory))
    assert [matter[key] for key in ("pretty_name", "license", "license_link")] == list(card.values())
    assert "license_name" not in matter


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"licence": "mit"}, "there is no key of card 'licence'; did you mean 'license'?"),
        ({"license": "CC BY"}, "card.license must be an identifier of the Hub, like cc-by-4.0 or other, not 'CC BY'"),
        ({"title": "two\nlines"}, "card.title must be a line of text"),
    ],
)
def test_a_mistake_in_the_cards_words_is_told_in_one_line(card, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(changes={"card": card})
    assert load_config(changes={"card": {"title": "x"}}).fingerprint() == load_config().fingerprint()


def test_the_card_tells_how_measures_are_spread(tmp_path):
    rows = video_rows("a")
    measured = [{**row, "blur": blur, "category": "food"} for row, blur in zip(rows.clips, (0.25, 0.75), strict=True)]
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([dataclasses.replace(rows, clips=tuple(measured))])
        finalise(tmp_path)
    lines = pathlib.Path(write_card(tmp_path)).read_text(encoding="utf-8").splitlines()
    assert "| blur | 2 | 0.275 | 0.5 | 0.725 |" in lines
    assert "`category`: food 2" in lines


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
