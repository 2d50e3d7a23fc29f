"""Every model of the catalogue that is not in a package: a tiny checkpoint of its class, through Beam, clip by clip."""

import pickle

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that, equal_to
from lite_media import clip_of, write_reel
from tiny_checkpoints import folder_name, write_checkpoint
from tiny_words import COLOURS

from model_handlers import catalogue
from model_handlers.resident import ResidentHandler
from transforms.inference import infer
from transforms.records import Candidate, CaptionedClip, EmbedRequest, Shot

pytest.importorskip("torch")
pytest.importorskip("transformers")

ENTRIES = [
    *(("teacher", entry) for entry in catalogue.TEACHERS.values() if entry.settings),
    *(("embedder", entry) for entry in catalogue.EMBEDDERS.values() if entry.settings),
    *(("selector", entry) for entry in catalogue.SELECTORS.values() if entry.settings),
]
#: Asked over HTTP; they have tests of their own.
REMOTE = ("endpoint", "vllm")
#: Trained by the user alone, on the lite profile's models; see test_lite_projection.py.
OWN = ("lite-projection",)
LOADED = [(kind, entry) for kind, entry in ENTRIES if entry.name not in (*REMOTE, *OWN)]
CAPTIONS = ["a red boat moves", "A green train stands still. Nobody is there, and it rains.", "blue"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Five clips of a colour each, the third without its reel; two of them with text."""
    folder = tmp_path_factory.mktemp("reels")
    made = []
    for number, colour in enumerate(COLOURS[:5]):
        reel = write_reel(folder / f"{number}.arrow", [np.full((72, 128, 3), colour, np.uint8)] * 6)
        text = {"title": "A day", "subtitles": "Look at the boat."} if number % 2 else {}
        made.append(clip_of(reel if number != 2 else f"{reel}.gone", 6, f"clip-{number}", **text))
    return made


def requests_for(kind, clips):
    if kind == "teacher":
        return clips
    if kind == "embedder":
        return [EmbedRequest("v", Shot(n, 0, 6, 0.0, 3.0, 0.0, 2.5), clip.reel) for n, clip in enumerate(clips)]
    candidates = tuple(Candidate(f"t{n}", "m", "r", "p", text, "f") for n, text in enumerate(CAPTIONS))
    return [CaptionedClip(clip, candidates[: 1 + n % 3], (), ()) for n, clip in enumerate(clips)]


def shape(kind, request, outcome):
    """What an answer must be, whatever the weights say."""
    if outcome.failure is not None:
        return outcome.failure.error_class
    if kind == "teacher":
        assert isinstance(outcome.answer, str) and outcome.answer == outcome.answer.strip()
        return "caption" if any(map(str.isalpha, outcome.answer)) else outcome.answer
    if kind == "embedder":
        first, last = outcome.answer
        assert len(first) == len(last) and all(abs(np.linalg.norm(one) - 1) < 1e-4 for one in (first, last))
        return "vectors"
    assert len(outcome.answer) == len(request.candidates)
    assert all(isinstance(score, float) and score == score for score in outcome.answer)
    return "scores"


@pytest.mark.parametrize(("kind", "entry"), LOADED, ids=lambda one: getattr(one, "name", one))
def test_each_model_answers_every_clip_in_place_and_a_missing_reel_costs_its_own(kind, entry, folders, clips):
    entry = entry.changed(**write_checkpoint(entry.name, folders / folder_name(entry.name)))
    handler = pickle.loads(pickle.dumps(entry.build()))
    assert isinstance(handler, ResidentHandler) and entry.revision.startswith("sha256 ")
    requests = requests_for(kind, clips)
    alone = {}
    model = handler.load_model()
    for number, request in enumerate(requests):
        (outcome,) = handler.run_inference([request], model)
        alone[number] = outcome
    wanted = {"teacher": "caption", "embedder": "vectors", "selector": "scores"}[kind]
    told = [shape(kind, request, alone[number]) for number, request in enumerate(requests)]
    # A language model over tags needs no reel for the clip that has text; this one has none.
    assert told == [wanted, wanted, "ReelError", wanted, wanted]

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        answered = pipeline | beam.Create(requests) | beam.Reshuffle() | infer(handler)
        rows = answered | beam.Map(lambda one: (requests.index(one.request), rounded(one.answer)))
        assert_that(rows, equal_to([(number, rounded(one.answer)) for number, one in alone.items()]))


def rounded(answer):
    """Floats differ in the last places with the batch that they are in."""
    if isinstance(answer, tuple):
        return tuple(rounded(one) for one in answer)
    return round(answer, 3) + 0.0 if isinstance(answer, float) else answer


def test_every_entry_of_the_hub_names_a_commit_a_licence_and_its_size():
    for _, entry in LOADED:
        # Weights that only a user has.
        if not entry.settings.weights:
            continue
        assert len(entry.settings.revision) == 40 and entry.revision == entry.settings.revision, entry.name
        assert entry.parameters_b > 0 and entry.download_gb > 0 and entry.memory_gb > 1.5, entry.name
        # Sixteen bits a parameter at the least.
        assert entry.download_gb >= entry.parameters_b * 1.9, entry.name


def test_the_papers_eight_teachers_all_have_a_part():
    parts = sorted(entry.stands_for for entry in catalogue.TEACHERS.values() if entry.stands_for)
    assert parts == [
        "BLIP-2 flan-t5-xl",
        "BLIP-2 opt-2.7b",
        "BLIP-2 opt-6.7b",
        "MiniGPT-4",
        "Video-LLaMA, finetuned",
        "Video-LLaMA, pretrained",
        "VideoChat",
        "VideoChat-Text",
    ]


def test_what_shapes_a_caption_changes_its_prompt_id_and_where_it_is_loaded_from_does_not(folders):
    entry = catalogue.teacher("qwen3-vl-2b")
    local = entry.changed(**write_checkpoint(entry.name, folders / folder_name(entry.name)))
    assert local.prompt_id == entry.prompt_id and local.revision != entry.revision
    ids = {entry.changed(**change).prompt_id for change in ({"frames": 8}, {"inputs": "V"}, {"max_new_tokens": 9})}
    assert len(ids | {entry.prompt_id}) == 4
    assert entry.changed(max_batch=3).prompt_id == entry.prompt_id
