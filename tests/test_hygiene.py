"""Text hygiene in a whole job: what a configuration may ask for, what stands in the rows, and what is asked again."""

import json
import pathlib

import pytest
import yaml
from fakes import MEDIA, make_clip
from synthetic import make_video
from tiny_readers import make_judge, make_namer

from beam_pipeline.cli import main
from beam_pipeline.config import Config, ConfigError, load_config
from beam_pipeline.hygiene import hygiene_settings, tidy
from beam_pipeline.verify import audit
from beam_pipeline.verify_spans import check_clip
from transforms.cleaning import CleanedClip
from transforms.recalling import earlier_of
from transforms.records import (
    Candidate,
    CaptionedClip,
    Failure,
    JudgedClip,
    Shot,
    SplitVideo,
    StitchedVideo,
    Video,
)
from transforms.rows import video_rows
from transforms.schemas import TABLES, VideoRows
from transforms.tables import read_table

pytest.importorskip("badwords", reason="needs the extra `hygiene`")
pytest.importorskip("py3langid", reason="needs the extra `hygiene`")

FINGERPRINTS = {"split": "s", "embed": "e", "captions": "c", "select": "x"}
VIDEO = Video("v", "/videos/v.mp4", "1", 10)


def config_of(tmp_path: pathlib.Path, hygiene: object) -> Config:
    """The lite profile with this hygiene."""
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"extends": "lite", "hygiene": hygiene}))
    return load_config(file=str(file))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (True, "hygiene must be a mapping of stock, names, harmful, language, not True"),
        ({"stocks": True}, "there is no part of hygiene 'stocks'; did you mean 'stock'"),
        ({"stock": "yes"}, "hygiene.stock must be true or false, not 'yes'"),
        ({"names": True}, "hygiene.names needs weights: a directory, gs://, or a hub id with a revision, not True"),
        ({"names": "en_core_web_nonesuch"}, "the spaCy pipeline en_core_web_nonesuch is not installed; run: python"),
        ({"names": {"weights": "dslim/bert-base-NER"}}, "dslim/bert-base-NER needs a pinned revision"),
        ({"names": {"weights": "x", "frames": 3}}, "there is no key of hygiene.names 'frames'"),
        ({"harmful": {"language": ["en"]}}, "there is no key of hygiene.harmful 'language'; did you mean 'languages'"),
        ({"harmful": {"languages": "en"}}, r"hygiene.harmful.languages must be a list such as \[en, de\], not 'en'"),
        ({"harmful": {"languages": ["English"]}}, "languages must be codes such as en or pt"),
        ({"harmful": {"weights": "x", "threshold": 1}}, "threshold must be a number between 0 and 1, not 1"),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_could(tmp_path, asked, told):
    with pytest.raises(ConfigError, match=told):
        config_of(tmp_path, asked)


@pytest.mark.parametrize("asked", [None, False, {}, {"stock": False}, {"names": None, "harmful": False}])
def test_a_configuration_that_asks_for_nothing_is_the_one_without_hygiene(tmp_path, asked):
    plain, config = load_config("lite"), config_of(tmp_path, asked)
    assert (config.hygiene, config.fingerprint(), config.models) == (None, plain.fingerprint(), plain.models)


def test_each_part_changes_the_fingerprint_in_its_own_way(tmp_path):
    plain = load_config("lite").fingerprint()
    namer, judge = make_namer(tmp_path / "namer"), make_judge(tmp_path / "judge")
    asked = [
        {"stock": True},
        {"language": True},
        {"harmful": True},
        {"harmful": {"languages": ["en", "de"]}},
        {"harmful": {"weights": str(judge)}},
        {"harmful": {"weights": str(judge), "threshold": 0.9}},
        {"names": {"weights": str(namer)}},
        {"names": {"weights": str(judge)}},
        {"stock": True, "language": True},
    ]
    found = [config_of(tmp_path, one).fingerprint() for one in asked]
    assert len({plain, *found}) == len(asked) + 1


def test_weights_are_known_by_what_is_in_them_wherever_they_lie(tmp_path):
    places = [make_namer(tmp_path / name) for name in ("a", "b")]
    one, other = (hygiene_settings({"names": {"weights": str(place)}}) for place in places)
    assert one.identity == other.identity


def test_a_model_whose_licence_is_not_told_is_refused_where_commercial_use_is_wanted(tmp_path):
    namer = str(make_namer(tmp_path / "namer"))
    file = tmp_path / "mine.yaml"
    for told, refused in (({}, True), ({"licence": "MIT", "commercial": True}, False)):
        file.write_text(yaml.safe_dump({"extends": "lite", "hygiene": {"names": {"weights": namer, **told}}}))
        if refused:
            with pytest.raises(ConfigError, match="--commercial-only refuses names: unknown"):
                load_config(file=str(file), commercial_only=True)
        else:
            assert load_config(file=str(file), commercial_only=True).hygiene.names.licence == "MIT"


def curate(source: pathlib.Path, dataset: pathlib.Path, config: str) -> tuple[list[dict], dict]:
    """Run the command; returns the clips and what the last run counted by stage."""
    assert main(["curate", "--input", str(source), "--output", str(dataset), "--config", config]) == 0
    assert audit(dataset).breaches == []
    rows = sorted(read_table(dataset, "clips").to_pylist(), key=lambda row: row["start_s"])
    last = max((dataset / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return rows, json.loads(last.read_text())["stages"]


def test_a_job_cleans_captions_that_stand_without_asking_teachers_or_selector_again(tmp_path, capsys):
    video = make_video(tmp_path / "a.mp4", shots=[(4.0, "blue")], drift_px=3)
    (tmp_path / "a.json").write_text(json.dumps({"title": "This is bullshit"}))
    dataset, plain = tmp_path / "set", tmp_path / "plain.yaml"
    plain.write_text("extends: lite\n")
    before, _ = curate(video, dataset, str(plain))
    assert [(row["caption_language"], row["harmful_text"]) for row in before] == [(None, None)]

    asked = {"stock": True, "harmful": True, "language": True, "names": {"weights": str(make_namer(tmp_path / "n"))}}
    config_of(tmp_path, asked)
    after, stages = curate(video, dataset, str(tmp_path / "mine.yaml"))
    changed = {"caption", "caption_language", "harmful_text", "fingerprint", "run_id", "made_with"}
    assert [{**row, **dict.fromkeys(changed)} for row in after] == [{**row, **dict.fromkeys(changed)} for row in before]
    assert [(row["caption_language"], row["harmful_text"]) for row in after] == [("en", True)]
    assert [row["caption"] for row in after] == [tidy(row["caption"]) for row in before]
    assert (stages["score"]["reused"], stages["clean"]["in"], stages["clean"]["out"]) == (1, 1, 1)
    assert {teacher["asked"] for teacher in stages["caption"]["teachers"].values()} == {0}

    capsys.readouterr()
    curate(video, dataset, str(tmp_path / "mine.yaml"))
    assert "1 in: 0 committed, 1 unchanged" in capsys.readouterr().out


CLIP = make_clip(version=VIDEO.version)
WHOLE = StitchedVideo(
    SplitVideo(VIDEO, MEDIA, (Shot(0, 0, 600, 0.0, 4.0, 0.1, 3.9),), "/reels/v.arrow"), (CLIP,), ((1.0, 0.0),), (), ()
)
LETTER = Failure("ValueError", "names: cannot be read", "").letter(
    "clean", "v", CLIP.uri, clip_id=CLIP.clip_id, span=CLIP.span
)


def uncleaned(select: str, made_with: str = "h") -> VideoRows:
    """The rows of a video whose only caption could not be cleaned."""
    captioned = CaptionedClip(CLIP, (Candidate("a", "m", "r", "p", "Anna runs.", "f"),), (), ())
    cleaned = CleanedClip(
        JudgedClip(captioned, (0.5,), 0, None, False, (), "s1"), "Anna runs.", "en", None, (LETTER,), made_with
    )
    return video_rows(WHOLE, [cleaned], "run", {**FINGERPRINTS, "select": select})


def test_a_caption_that_could_not_be_cleaned_leaves_the_clip_and_says_so():
    rows = uncleaned("x")
    rows.check()
    assert (rows.video["status"], rows.video["n_clips"], rows.video["n_failures"]) == ("ok", 1, 1)
    assert [(row["caption"], row["caption_language"], row["harmful_text"]) for row in rows.clips] == [
        ("Anna runs.", "en", None)
    ]
    assert [(row["stage"], row["message"], row["captions"]) for row in rows.failures] == [
        ("clean", "names: cannot be read", None)
    ]


@pytest.mark.parametrize(("select", "retried"), [("x", []), ("y", [LETTER])])
def test_whatever_changed_the_scores_stay_and_what_failed_is_cleaned_again(select, retried):
    rows = uncleaned("x")
    earlier = earlier_of({name: rows.of(name) for name in TABLES}, {**FINGERPRINTS, "select": select})
    assert [clip.answers.scores for clip in earlier.clips] == [(0.5,)]
    assert earlier.clips[0].answers.made_with["select"] == "s1"
    assert list(earlier.retried) == retried


@pytest.mark.parametrize(("made_with", "breaches"), [("h", []), ("", ["v-0: its caption is none of a's candidates"])])
def test_verify_accepts_words_that_are_no_candidates_where_they_were_cleaned(made_with, breaches):
    (row,) = uncleaned("x", made_with).clips
    assert list(check_clip({**row, "caption": "Person runs."})) == breaches
