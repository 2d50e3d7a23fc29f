"""The student as a teacher: what it sees, says and refuses, on a directory of the real classes that nobody trained."""

import dataclasses
import json
import pathlib
import pickle
import shutil

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that, equal_to
from lite_media import clip_of, write_reel
from tiny_student import scene, scenes, tiny_student
from wordy_student import FRAMES, WORDS, make_wordy

from model_handlers import catalogue
from model_handlers.answers import UnusableAnswer
from model_handlers.devices import Device
from model_handlers.resident import Resident
from model_handlers.student_teacher import Student, StudentSettings, StudentTeacher, joined, search_of, texts_of
from model_handlers.weights import WeightsError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = Device("cpu", torch.float32)
TEXT = {"title": "Falcon garden", "description": "A kettle.", "subtitles": "mirror mirror"}


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> pathlib.Path:
    """A student's directory; tests must not change it."""
    return make_wordy(tmp_path_factory.mktemp("student") / "v1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight clips of different scenes, of more frames than a student sees; every other one has text."""
    folder = tmp_path_factory.mktemp("reels")
    made = []
    for number, (colour, change) in enumerate(scenes()):
        reel = write_reel(folder / f"{number}.arrow", scene(colour, change, frames=6))
        made.append(clip_of(reel, 6, f"clip-{number}", **(TEXT if number % 2 else {})))
    return made


def teacher(folder, **changes) -> StudentTeacher:
    return StudentTeacher("student", StudentSettings(str(folder), **changes))


def said(folder, clips, **changes) -> list[str]:
    """The captions of the clips, each asked alone."""
    model = teacher(folder, **changes).load()
    return [model.respond([clip])[0][0].answer for clip in clips]


def test_each_clip_gets_its_own_caption_in_any_batch_and_a_missing_reel_costs_itself(student, clips):
    alone = said(student, clips)
    assert len(set(alone)) >= 5 and {word for answer in alone for word in answer.split()} <= set(WORDS)
    missing = dataclasses.replace(clips[0], clip_id="clip-missing", reel="/no/such.arrow")
    expected = [(clip.clip_id, answer, None) for clip, answer in zip(clips, alone, strict=True)]
    expected.append(("clip-missing", None, "ReelError"))
    handler = pickle.loads(pickle.dumps(teacher(student)))
    with beam.Pipeline("FnApiRunner") as pipeline:
        told = (
            pipeline
            | beam.Create([*clips[:3], missing, *clips[3:]], reshuffle=False)
            | RunInference(handler)
            | beam.Map(lambda one: (one.request.clip_id, one.answer, one.failure and one.failure.error_class))
        )
        assert_that(told, equal_to(expected))


def test_text_is_read_where_there_is_some_unless_the_inputs_leave_it_out(student, clips):
    read, unread = said(student, clips), said(student, clips, inputs="V")
    mute = [dataclasses.replace(clip, title=None, description=None, subtitles=None) for clip in clips]
    assert said(student, mute) == unread == said(student, mute, inputs="V")
    assert read[::2] == unread[::2] and all(one != other for one, other in zip(read[1::2], unread[1::2], strict=True))


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("V", (None, None, None)),
        ("V-S", (None, None, "mirror mirror")),
        ("V-M", ("Falcon garden", "A kettle.", None)),
        ("V-S-M", ("Falcon garden", "A kettle.", "mirror mirror")),
    ],
)
def test_the_inputs_say_which_texts_reach_the_student(inputs, expected, clips):
    assert dataclasses.astuple(texts_of(clips[1], inputs)) == expected


def test_two_teachers_of_one_directory_have_one_copy_of_its_weights(student):
    both, seen = teacher(student).network(CPU), teacher(student, inputs="V").network(CPU)
    assert both.model is seen.model


def test_batches_of_one_joined_are_the_batch_that_the_students_own_inputs_make(student, clips):
    from model_handlers.frames import clip_frames
    from model_handlers.student_inputs import Sample

    network = teacher(student).network(CPU)
    ours = joined([network.prepare(clip) for clip in clips[:3]])
    samples = [Sample(clip_frames(clip, FRAMES).frames, texts_of(clip, "V-S-M")) for clip in clips[:3]]
    theirs = network.inputs.batch(samples)
    assert ours["pixel_values"].shape == (3, FRAMES, 3, 28, 28) and ours["text_mask"].sum(1).tolist()[::2] == [0, 0]
    assert {name: torch.equal(tensor, theirs[name]) for name, tensor in ours.items()} == dict.fromkeys(theirs, True)


class Cramped(Student):
    """A student on a device with room for two clips."""

    def forward(self, prepared):
        if len(prepared) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(prepared)


def test_a_batch_that_runs_out_of_memory_is_halved_and_no_clip_is_lost(student, clips):
    outcomes, work = Resident(Cramped(StudentSettings(str(student)), CPU), CPU, most=8).respond(clips)
    assert [one.answer for one in outcomes] == said(student, clips)
    assert work.out_of_memory > 0 and max(work.batches) == 2 and sum(work.batches) == len(clips)


def test_the_directory_says_how_words_are_searched_for_and_the_settings_how_many(student, clips, tmp_path):
    copied = shutil.copytree(student, tmp_path / "v2")
    search = {"max_new_tokens": 3, "num_beams": 2, "do_sample": True, "temperature": 9.0, "no_repeat_ngram_size": 1}
    (copied / "generation_config.json").write_text(json.dumps(search))
    network = teacher(copied).network(CPU)
    assert network.search == {"max_new_tokens": 3, "num_beams": 2, "no_repeat_ngram_size": 1, "do_sample": False}
    with torch.inference_mode():
        raw = network.forward([network.prepare(clips[0])])
        longer = teacher(copied, max_new_tokens=4).network(CPU).forward([network.prepare(clips[0])])
    assert (len(raw.values[0].split()), raw.tokens) == (3, 3)
    assert (len(longer.values[0].split()), longer.tokens) == (4, 4)


@pytest.mark.parametrize(
    ("told", "asked", "room", "most"),
    [
        ({}, 0, None, 64),
        ({}, 0, 20, 20),
        ({"max_new_tokens": 30}, 0, None, 30),
        ({"max_new_tokens": 30}, 9, 20, 9),
        ({"max_new_tokens": None}, 0, 100, 64),
    ],
)
def test_the_settings_go_before_the_directory_and_nothing_beyond_what_the_language_model_reads(told, asked, room, most):
    settings = StudentSettings("v1", max_new_tokens=asked)
    assert search_of(told, settings, room) == {"do_sample": False, "max_new_tokens": most}


@pytest.mark.parametrize("told", [{"num_beams": "many"}, {"max_new_tokens": 0}, {"num_beams": 2.5}])
def test_a_search_that_cannot_be_meant_is_refused(told):
    with pytest.raises(WeightsError, match=r"v1/generation_config\.json: .* must be a whole number from 1 up, not "):
        search_of(told, StudentSettings("v1"), None)


def test_a_directory_without_a_generation_configuration_is_asked_greedily(student, tmp_path):
    copied = shutil.copytree(student, tmp_path / "v2")
    (copied / "generation_config.json").unlink()
    assert teacher(copied).network(CPU).search == {"do_sample": False, "max_new_tokens": 64}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_new_tokens": 120}, "max_new_tokens must be at most 119 for {}, not 120"),
        ({"text_tokens": 49}, "text_tokens must be at most 48 for {}, not 49"),
        ({"frames": 8}, "frames must be 4, as {} was trained, not 8"),
    ],
)
def test_what_does_not_fit_a_student_is_told_with_what_would(student, changes, told):
    with pytest.raises(ValueError) as raised:
        teacher(student, **changes).network(CPU)
    assert str(raised.value) == told.format(student)


def test_a_shorter_text_is_cut_and_a_wordless_answer_is_refused(student, clips):
    network = teacher(student, text_tokens=4).network(CPU)
    assert network.prepare(clips[1])["text_ids"].shape[1] <= 4
    with pytest.raises(UnusableAnswer, match="no words"):
        network.finish(clips[0], " ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"config.json": {"model_type": "llama"}}, "{} holds a model of type llama, no student; "),
        ({"config.json": None}, "{} holds no config.json; name a directory that save_pretrained wrote"),
        ({"student_inputs.json": None}, "{} holds no student_inputs.json, so it is no student; "),
        ({"student_inputs.json": {"colours": 3}}, "{} was written by another release of reelscribe: "),
        ({"student_inputs.json": {"prompt_id": "student-text-9"}}, "{} was written by another release of reelscribe: "),
        ({"student_inputs.json": {"prompt_id": "student-text-1", "frames": 0}}, "{}/student_inputs.json can't be used"),
        ({"student.json": {"schema_version": 2}}, "{} was written by another release of reelscribe: student.json has"),
        ({"student_inputs.json": [1]}, "{}/student_inputs.json holds no object; "),
    ],
)
def test_a_directory_that_holds_no_student_of_this_release_is_refused_before_the_job(student, tmp_path, change, told):
    folder = tmp_path / "v2"
    folder.mkdir()
    for name in ("config.json", "student_inputs.json"):
        (folder / name).write_bytes((student / name).read_bytes())
    for name, content in change.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    with pytest.raises(WeightsError) as raised:
        catalogue.teacher("student").changed(weights=str(folder))
    assert str(raised.value).startswith(told.format(folder)) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("model.safetensors", "{} holds no model.safetensors, so it is half a copy; copy it again"),
        ("tokenizer_config.json", "{} holds no tokenizer_config.json, so it is half a copy; copy it again"),
        ("tokenizer.json", "{} holds no tokenizer.json, so it is half a copy; copy it again"),
        ("generation_config.json", "{} holds no generation_config.json, so it is half a copy; copy it again"),
    ],
)
def test_half_a_copy_is_refused_before_the_job_in_a_directory_or_a_bucket(student, tmp_path, gcs, name, told):
    copied = shutil.copytree(student, tmp_path / "v2")
    (copied / "student.json").write_text('{"schema_version": 1}')
    whole = (copied / name).read_bytes()
    (copied / name).unlink()
    for file in copied.iterdir():
        gcs.put(f"models/v2/{file.name}", file.read_bytes())
    for weights in (str(copied), "gs://bucket/models/v2"):
        with pytest.raises(WeightsError) as raised:
            catalogue.teacher("student").changed(weights=weights)
        assert str(raised.value) == told.format(weights)
    if name == "model.safetensors":
        (copied / name).write_bytes(whole[:-1])
        with pytest.raises(WeightsError, match=r"model\.safetensors is cut short or no safetensors .*; copy it again"):
            catalogue.teacher("student").changed(weights=str(copied))


def test_shards_are_looked_for_by_their_index(student, tmp_path):
    model, inputs = tiny_student(student.with_name("v1-parts") / "llm", student.with_name("v1-parts") / "tower")
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    inputs.save(tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    catalogue.teacher("student").changed(weights=str(tmp_path))
    shards[1].unlink()
    assert len(shards) > 2
    with pytest.raises(WeightsError, match=f"holds no {shards[1].name}, so it is half a copy"):
        catalogue.teacher("student").changed(weights=str(tmp_path))


def test_left_out_parts_that_no_bucket_holds_are_missed_before_the_job(student, gcs, tmp_path):
    parts = student.with_name("v1-parts")
    model, inputs = tiny_student(parts / "llm", parts / "tower", save_frozen=False)
    model.save_pretrained(tmp_path)
    inputs.save(tmp_path)
    for file in tmp_path.iterdir():
        gcs.put(f"models/v3/{file.name}", file.read_bytes())
    with pytest.raises(WeightsError, match=r"its language model is at \.\./.*/llm on the machine that trained it, and"):
        catalogue.teacher("student").changed(weights="gs://bucket/models/v3")


def test_left_out_parts_in_a_bucket_may_be_written_again_and_moved_but_not_be_gone_or_others(student, gcs, tmp_path):
    parts = student.with_name("v1-parts")
    for file in (parts / "llm").iterdir():
        gcs.put(f"parts/llm/{file.name}", file.read_bytes())
    model, inputs = tiny_student("gs://bucket/parts/llm", parts / "tower", save_frozen=False)
    model.save_pretrained(tmp_path / "v3")
    inputs.save(tmp_path / "v3")
    entry = catalogue.teacher("student").changed(weights=str(tmp_path / "v3"))
    config = (parts / "llm" / "config.json").read_bytes()
    gcs.put("parts/llm/config.json", config)
    entry.build().network(CPU)
    type(model).from_pretrained(tmp_path / "v3", parts={"language": parts / "llm"})
    shutil.copytree(tmp_path / "v3", tmp_path / "v4")
    gcs.put("parts/llm/config.json", config + b"\n")
    # Weights are kept in memory by their directory.
    with pytest.raises(WeightsError, match=r"but this student was trained with sha256 .*; put those files there again"):
        entry.changed(weights=str(tmp_path / "v4")).build().network(CPU)
    for name in gcs.names("parts/llm/"):
        gcs.remove(name)
    told = "v3 holds only what was trained, not its language model: there is no checkpoint below gs://bucket/parts/llm"
    with pytest.raises(WeightsError, match=told):
        entry.changed(weights=str(tmp_path / "v3"))


def test_a_copy_that_cannot_be_loaded_is_called_what_the_user_calls_it(student, gcs):
    for file in student.iterdir():
        gcs.put(f"models/v5/{file.name}", file.read_bytes())
    gcs.put("models/v5/model.safetensors", b"cut")
    with pytest.raises(WeightsError, match=r"^gs://bucket/models/v5 is not whole \(.*\); copy it again$"):
        teacher("gs://bucket/models/v5").network(CPU)


def test_weights_are_counted_in_the_files_those_of_left_out_parts_too(student, tmp_path):
    parts = student.with_name("v1-parts")
    model, inputs = tiny_student(parts / "llm", parts / "tower", save_frozen=False)
    model.save_pretrained(tmp_path)
    inputs.save(tmp_path)
    expected = pytest.approx(sum(one.numel() for one in model.parameters()) / 1e9, rel=0.01)
    for folder in (student, tmp_path):
        assert catalogue.teacher("student").changed(weights=str(folder)).parameters_b == expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inputs": "S-M"}, "inputs must hold V for student, which sees the frames, not S-M"),
        ({"prompt": "video-sentence"}, "prompt can't be chosen for a student, which was trained on its own; "),
        ({"frames": 8}, "frames must be 4, as {} was trained, not 8"),
        ({"max_new_tokens": -1}, "max_new_tokens must be a whole number from 1 up, not -1"),
        ({"frames": False}, "frames must be a whole number from 1 up, not False"),
    ],
)
def test_settings_that_no_student_can_have_are_refused_before_it_is_loaded(student, changes, told):
    with pytest.raises(ValueError) as raised:
        catalogue.teacher("student").changed(weights=str(student), **changes).build()
    assert str(raised.value).startswith(told.format(student))


def test_captions_carry_the_digest_of_the_directory_and_what_was_read(student, tmp_path):
    entry = catalogue.teacher("student").changed(weights=str(student))
    moved = entry.changed(weights=str(shutil.copytree(student, tmp_path / "moved")))
    assert entry.revision.startswith("sha256 ") and moved.identity == entry.identity
    (tmp_path / "moved" / "generation_config.json").write_text("{}")
    assert entry.changed(weights=str(tmp_path / "moved")).revision != entry.revision
    seen = entry.changed("student-seen", inputs="V")
    assert [one.prompt_id.rpartition("/")[0] for one in (entry, seen)] == ["student-text-1/V-S-M", "unasked/V"]
    assert (seen.revision, seen.needs_text) == (entry.revision, False)
    assert entry.changed(max_new_tokens=9).prompt_id != entry.prompt_id == entry.changed(max_batch=3).prompt_id


def test_a_directory_of_the_workers_image_is_named_by_its_revision_and_missed_where_it_is_not(tmp_path):
    entry = catalogue.teacher("student").changed(weights=str(tmp_path / "v1"), revision="third try")
    assert entry.revision == "named third try"
    with pytest.raises(WeightsError, match=r"there is no directory .*v1 on this machine; the image must hold it"):
        entry.build().load()


def test_a_student_in_a_bucket_is_copied_and_says_the_same(student, clips, gcs):
    for file in student.iterdir():
        gcs.put(f"models/v1/{file.name}", file.read_bytes())
    entry = catalogue.teacher("student").changed(weights="gs://bucket/models/v1")
    assert entry.revision.startswith("objects ")
    assert entry.build().load().respond(clips[:2])[0][1].answer == said(student, clips[1:2])[0]
    gcs.put("models/v1/config.json", (student / "config.json").read_bytes())
    with pytest.raises(
        WeightsError, match="gs://bucket/models/v1 was written to after this job had begun; run the same"
    ):
        entry.build().load()
    gcs.put("models/v2/config.json", b'{"model_type": "gpt2"}')
    with pytest.raises(WeightsError, match="gs://bucket/models/v2 holds a model of type gpt2, no student"):
        catalogue.teacher("student").changed(weights="gs://bucket/models/v2")


def test_a_student_in_the_hubs_cache_is_loaded_at_its_commit(student, clips, tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    shutil.copytree(student, tmp_path / "models--me--student" / "snapshots" / commit)
    asked = {"weights": "me/student", "revision": commit}
    assert said("me/student", clips[:1], revision=commit) == said(student, clips[:1])
    assert catalogue.teacher("student").changed(**asked).revision == commit
    with pytest.raises(WeightsError, match="me/other can't be fetched from the hub"):
        teacher("me/other", revision=commit).load()


def test_a_student_that_refers_to_its_frozen_parts_says_the_same(student, clips, tmp_path):
    parts = student.with_name("v1-parts")
    model, inputs = tiny_student(parts / "llm", parts / "tower", save_frozen=False)
    whole, _ = tiny_student(parts / "llm", parts / "tower")
    for name, one in (("referring", model), ("whole", whole)):
        one.save_pretrained(tmp_path / name)
        inputs.save(tmp_path / name)
        shutil.copy(student / "generation_config.json", tmp_path / name)
    assert said(tmp_path / "referring", clips) == said(tmp_path / "whole", clips)
