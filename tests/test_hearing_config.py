"""What a configuration may say of speech: which model, what its licence allows, and what then depends on it."""

import pathlib
import shutil

import pytest
import tiny_whisper
import yaml

from beam_pipeline.cli import main
from beam_pipeline.config import Config, ConfigError, load_config
from beam_pipeline.hearing import speech_choice


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> str:
    pytest.importorskip("transformers")
    return tiny_whisper.make_whisper(tmp_path_factory.mktemp("whisper") / "whisper-tiny", ["<|0.00|>"])


def configure(folder: pathlib.Path, **values: object) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump({"extends": "lite", **values}))


def config_of(tmp_path: pathlib.Path, **values: object) -> Config:
    configure(tmp_path, **values)
    return load_config(file=str(tmp_path / "config.yaml"))


def test_only_captions_and_what_follows_depend_on_the_model_and_only_where_it_is_asked_for(tmp_path, whisper):
    plain = config_of(tmp_path).fingerprints("e", "t")
    assert [config_of(tmp_path, speech=off).fingerprints("e", "t") for off in (None, False)] == [plain, plain]
    asked = config_of(tmp_path, speech=whisper)
    assert {stage for stage, made_with in asked.fingerprints("e", "t").items() if made_with != plain[stage]} == {
        "captions", "select",
    }  # fmt: skip
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(whisper, elsewhere)
    same = [config_of(tmp_path, speech=value) for value in (str(elsewhere), {"weights": str(elsewhere)})]
    assert {one.fingerprint() for one in same} == {asked.fingerprint()}
    assert config_of(tmp_path, speech={"weights": whisper, "dtype": "float32"}).fingerprint() != asked.fingerprint()


def test_hints_place_the_model_like_others(tmp_path, whisper):
    config = config_of(tmp_path, speech={"weights": whisper, "min_ram": "30GB"}, placement={"min_ram": "8GB"})
    assert (config.hints_of(config.speech), config.hints_of(config.embedder)) == (
        {"min_ram": "30GB"},
        {"min_ram": "8GB"},
    )


COMMIT = "0" * 40


@pytest.mark.parametrize(
    ("asked", "licence", "restricted"),
    [
        ({"weights": "openai/whisper-small", "revision": COMMIT}, "Apache-2.0", ""),
        ({"weights": "openai/whisper-tiny.en", "revision": COMMIT}, "Apache-2.0", ""),
        ({"weights": "openai/whisper-large-v3-turbo", "revision": COMMIT}, "MIT", ""),
        (
            {"weights": "somebody/whisper-small", "revision": COMMIT},
            "unknown",
            "unknown; the configuration doesn't say that it allows commercial use",
        ),
        ({"weights": "somebody/w", "revision": COMMIT, "licence": "MIT", "commercial": True}, "MIT", ""),
    ],
)
def test_licences_are_those_of_the_publisher_or_what_the_configuration_says(asked, licence, restricted):
    entry = speech_choice(asked).entry
    assert (entry.licence, entry.restricted) == (licence, restricted)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (True, "speech needs weights: of a Whisper model, a directory, gs://, or a hub id with a revision, not True"),
        ({"dtype": "auto"}, "speech needs weights"),
        ("openai/whisper-small", "openai/whisper-small needs a pinned revision"),
        ("/nowhere", "there is no directory /nowhere"),
        ({"weights": "openai/whisper-small", "revison": COMMIT}, "no key of speech 'revison'; did you mean 'revision'"),
        ({"weights": "a/b", "revision": COMMIT, "dtype": "int8"}, "dtype must be one of"),
        ({"weights": "a/b", "revision": COMMIT, "min_ram": "much"}, "min_ram must be like 30GB, not 'much'"),
        ({"weights": "a/b", "revision": COMMIT, "commercial": "yes"}, "commercial is true or false"),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_could(tmp_path, asked, told):
    with pytest.raises(ConfigError, match=told):
        config_of(tmp_path, speech=asked)


def test_a_model_whose_licence_is_not_known_is_refused_where_commercial_use_is_wanted(tmp_path, whisper):
    configure(tmp_path, speech=whisper)
    with pytest.raises(ConfigError, match="--commercial-only refuses speech: unknown"):
        load_config(file=str(tmp_path / "config.yaml"), commercial_only=True)


def test_the_doctor_looks_for_the_model(tmp_path, whisper, capsys):
    configure(tmp_path, speech=whisper)
    main(["doctor", "--config", str(tmp_path / "config.yaml")])
    assert "ok    model speech" in capsys.readouterr().out
