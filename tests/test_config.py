"""Configurations: what a profile means, what a file changes, and how mistakes are told."""

import pytest

from beam_pipeline.config import ConfigError, load_config, profile_names
from model_handlers import catalogue


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_lite_is_the_default_and_takes_its_distances_from_its_embedder():
    config, limits = load_config(), catalogue.embedder("efficientnet-lite0").thresholds
    assert profile_names()[0] == config.profile == "lite"
    assert config.stitching.stitch_distance == limits.stitch
    assert config.stitching.still_distance == limits.still
    assert (config.splitting.detector, config.splitting.max_shot_s, config.stitching.min_event_s) == (
        "content",
        7.0,
        2.5,
    )


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("paper", (5.0, 0.10, 0.90, 2.0, 60.0, 0.1)),
        ("panda70m", (7.0, 0.05, 0.95, 2.5, 60.0, 0.1)),
        ("released", (7.0, 0.05, 0.95, 2.0, 1200.0, 0.0)),
    ],
)
def test_the_rules_differ_where_paper_dataset_and_code_do(rules, expected):
    config = load_config(changes={"splitting": {"rules": rules}})
    shots, events = config.splitting, config.stitching
    numbers = (shots.max_shot_s, shots.first_fraction, shots.last_fraction)
    assert (*numbers, events.min_event_s, events.max_clip_s, events.trim_fraction) == expected
    assert (events.redundant_distance is None) == (rules == "released")


def test_a_file_extends_a_profile_and_changes_what_it_names(tmp_path):
    path = write(tmp_path, "extends: lite\nstitching: {max_clip_s: 20}\nteachers: [lite-frame]\n")
    config = load_config(file=path)
    assert config.stitching.max_clip_s == 20
    assert [teacher.name for teacher in config.teachers] == ["lite-frame"]
    assert config.selector.name == load_config().selector.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teacher: [lite-frame]", "there is no key 'teacher'; did you mean 'teachers'?"),
        ("teachers: [lite-frmae]", "there is no teacher 'lite-frmae'; did you mean 'lite-frame'?"),
        ("teachers: []", "teachers must be a list of names or mappings"),
        ("stitching: {max_clip: 3}", "there is no key 'max_clip'; did you mean 'max_clip_s'?"),
        ("splitting: {rules: panda}", "did you mean 'panda70m'?"),
        ("splitting: {detector: contnet}", "content"),
        ("stitching: {trim_fraction: 0.7}", "trim_fraction"),
        ("extends: lite2", "there is no profile 'lite2'; did you mean 'lite'?"),
        ("- 1", "must be a mapping"),
        ("a: [", "cannot read the configuration"),
        ("stitching: 3", "must be a mapping"),
        ("embedder: [a]", "embedder must be a name of the catalogue or a mapping with like:"),
        ("teachers: [lite-frame, lite-frame]", "there are two teachers 'lite-frame'"),
        ("teachers: [{name: mine}]", "A teacher of your own says like: which of them it resembles"),
        ("teachers: [{like: lite-frame, frames: 3}]", "nothing of lite-frame can be changed, not even frames"),
        ("placement: {teachers: alone}", "teachers must be apart or together, not 'alone'"),
        ("placement: {models_at_once: 1}", "models_at_once is for teachers that are together"),
        ("placement: {acelerator: x}", "did you mean 'accelerator'?"),
        ("placement: {accelerator: l4}", "accelerator must be like type:nvidia-l4;count:1;install-nvidia-driver"),
        ("placement: {min_ram: lots}", "min_ram must be like 30GB, not 'lots'"),
        ("placement: {gpus: 2}", "several gpus are for models apart with one_copy_per: machine"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_the_nearest_right_name(tmp_path, text, message):
    with pytest.raises(ConfigError) as raised:
        load_config(file=write(tmp_path, text))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_profile_and_file_may_not_contradict_each_other(tmp_path):
    with pytest.raises(ConfigError, match="keep one of them"):
        load_config(profile="other", file=write(tmp_path, "extends: lite"))


def changed(**changes):
    return load_config(changes=changes).fingerprints("etag", "text")


def test_fingerprints_change_from_the_stage_that_a_change_concerns_onwards():
    before = changed()
    names = ["split", "embed", "captions", "select"]

    def same(after):
        return [name for name in names if after[name] == before[name]]

    assert same(changed()) == names
    assert same(changed(splitting={"max_shot_s": 6.0})) == []
    assert same(changed(stitching={"max_clip_s": 6.0})) == ["split"]
    assert same(changed(teachers=["lite-frame"])) == ["split", "embed"]
    assert same(changed(abstain_below=0.9)) == ["split", "embed", "captions"]
    assert same(load_config().fingerprints("other", "text")) == []
    assert same(load_config().fingerprints("etag", "other")) == ["split", "embed"]
