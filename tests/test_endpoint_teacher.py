"""Teachers behind an endpoint, against a real server: what they ask, and whose caption an answer becomes."""

import concurrent.futures
import pickle
import re

import apache_beam as beam
import endpoint_asking
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from endpoint_asking import KEY, ask, captions, settings_for, teacher_for, told
from endpoint_server import (
    FRAMES,
    NO_CLIP,
    after,
    caption_of,
    chat,
    frame_of,
    says,
    status,
    write_clips,
)
from lite_media import clip_of

from model_handlers.endpoint_chats import ORDER, count_tokens
from model_handlers.endpoint_teacher import EndpointSettings, EndpointTeacher
from model_handlers.prompts import fit, prompt
from transforms.reel import Reel

server, quick = endpoint_asking.server, endpoint_asking.quick


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), 24)


def test_good_answer_becomes_the_caption_and_the_request_holds_what_the_settings_say(server, clips, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (outcome,) = ask(teacher_for(server, frames=2, max_new_tokens=33), clips[3:4])
    assert (outcome.request, outcome.answer, outcome.failure) == (clips[3], caption_of(3, 2), None)
    (question,) = server.questions
    asked = fit(prompt("video-sentence"), clips[3], "V", count_tokens, 1024)
    rows = Reel.open(clips[3].reel).uniform(0.0, 2.0, 2)
    assert question.jpegs == Reel.open(clips[3].reel).jpegs(rows)
    assert [frame_of(jpeg) for jpeg in question.jpegs] == rows
    assert [part.get("text") for part in question.parts] == [ORDER, None, None, asked.request]
    assert question.body["messages"][0] == {"role": "system", "content": asked.system}
    fields = {name: value for name, value in question.body.items() if name != "messages"}
    assert fields == {"model": "tiny", "max_tokens": 33, "temperature": 0}
    assert question.path == "/v1/chat/completions"
    assert question.headers["Authorization"] == f"Bearer {KEY}"


def test_single_frame_comes_from_the_middle_without_a_word_on_order(server, clips):
    ask(teacher_for(server, frames=1), clips[:1])
    (question,) = server.questions
    assert [part["type"] for part in question.parts] == ["image_url", "text"]
    assert frame_of(question.jpegs[0]) in (1, 2)
    assert "Authorization" not in question.headers


def test_teacher_of_text_alone_sends_plain_strings_and_no_picture(server, tmp_path):
    (clip,) = write_clips(tmp_path, 1, FRAMES, title="A walk by the sea")
    server.plays[NO_CLIP] = [says(chat("Somebody walks by the sea."))]
    (outcome,) = ask(teacher_for(server, inputs="S-M"), [clip])
    assert outcome.answer == "Somebody walks by the sea."
    (question,) = server.questions
    assert "A walk by the sea" in question.body["messages"][-1]["content"]
    assert [type(message["content"]) for message in question.body["messages"]] == [str, str]


def test_text_is_cut_to_the_budget_by_an_estimate_that_errs_on_the_safe_side(server, tmp_path):
    subtitles = " ".join(f"This is sentence number {number} of what is said." for number in range(400))
    (clip,) = write_clips(tmp_path, 1, FRAMES, subtitles=subtitles)
    ask(teacher_for(server, inputs="V-S", text_tokens=600), [clip])
    (question,) = server.questions
    words = [message["content"] for message in question.body["messages"][:-1]] + [question.parts[-1]["text"]]
    assert 500 < count_tokens("\n\n".join(words)) <= 600
    assert "[...]" in words[-1]


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("dog", 1), ("dogs", 2), ("夕日", 2), ("ж" * 6, 4)])
def test_tokens_are_estimated_by_bytes(text, tokens):
    assert count_tokens(text) == tokens


def test_further_fields_go_along_and_can_take_the_temperature_out(server, clips):
    fields = {"temperature": None, "chat_template_kwargs": {"enable_thinking": False}}
    ask(teacher_for(server, request_fields=fields), clips[:1])
    sent = server.questions[0].body
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert "temperature" not in sent


def test_fields_that_a_model_does_not_take_are_given_up_once_for_all(server, clips):
    unsupported = "Unsupported {}: '{}' is not supported with this model."

    def usual(visitor, question):
        for name, what in (("max_tokens", "parameter"), ("temperature", "value")):
            if name in question.body:
                return status(400, message=unsupported.format(what, name))(visitor, question)
        return says(chat("A wall is seen."))(visitor, question)

    server.usual = usual
    teacher = teacher_for(server, concurrent=1)
    assert captions(ask(teacher, clips[:2]) + ask(teacher, clips[2:3])) == ["A wall is seen."] * 3
    assert [sorted(question.body) for question in server.questions[2:]] == [
        ["max_completion_tokens", "messages", "model"]
    ] * 3


def test_answers_in_shuffled_order_land_on_their_clips(server, clips):
    for number in range(24):
        server.plays[number] = [after(0.05 * ((number * 7) % 5))]
    assert captions(ask(teacher_for(server, concurrent=8), clips)) == [caption_of(n, FRAMES) for n in range(24)]
    assert [question.clip for question in server.questions] != sorted(q.clip for q in server.questions)
    assert server.most_at_once == 8


def test_batches_of_several_threads_share_the_limit(server, clips):
    server.usual = after(0.05)
    # Each thread has a copy of the handler, as Beam's have.
    copies = [pickle.loads(pickle.dumps(teacher_for(server, concurrent=3))) for _ in range(3)]
    batches = [clips[start : start + 6] for start in (0, 6, 12)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(ask, copies, batches))
    assert [captions(part) for part in parts] == [[caption_of(s + n, FRAMES) for n in range(6)] for s in (0, 6, 12)]
    assert server.most_at_once == 3


def test_clip_that_comes_twice_is_asked_about_once(server, clips):
    assert captions(ask(teacher_for(server), [clips[1], clips[1]])) == [caption_of(1, FRAMES)] * 2
    assert len(server.questions) == 1


def test_run_inference_answers_counts_and_goes_on(server, clips, tmp_path):
    server.plays[1] = [status(500), status(429, {"Retry-After": "0.2"})]
    server.plays[3] = [status(400, message="bad picture")]
    lost = clip_of(str(tmp_path / "none.arrow"), 4, "clip-lost")
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    outcomes = pipeline | beam.Create([*clips[:6], lost]) | RunInference(teacher_for(server, max_batch=7))
    seen = outcomes | beam.Map(lambda outcome: (outcome.request.clip_id, *told(outcome)[:2]))
    good_ones = [(f"clip-{n}", caption_of(n, FRAMES), None) for n in (0, 1, 2, 4, 5)]
    bad_ones = [("clip-3", None, "RequestRefused"), ("clip-lost", None, "ReelError")]
    assert_that(seen, equal_to(good_ones + bad_ones))
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_namespace("reelscribe/remote"))
    counters = {counter.key.metric.name: counter.committed for counter in found["counters"]}
    distributions = {one.key.metric.name: one.committed for one in found["distributions"]}
    assert (counters["tokens"], counters["retries"], counters["num_inferences"]) == (5 * 9, 2, 7)
    assert distributions["request_micro_secs"].count == 8
    assert distributions["rate_limit_wait_micro_secs"].count == 8
    assert 150_000 < distributions["rate_limit_wait_micro_secs"].max < 20_000_000


def test_pipeline_fails_when_the_endpoint_is_down(server, clips):
    server.usual = status(503)
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    pipeline | beam.Create(clips[:2]) | RunInference(teacher_for(server, attempts=1))
    with pytest.raises(Exception, match="none of 2 clips was answered"):
        pipeline.run().wait_until_finish()


def test_handler_travels_without_the_key(server, clips, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    teacher = teacher_for(server, max_batch=5)
    ask(teacher, clips[:1])
    travelling = pickle.dumps(teacher)
    assert KEY.encode() not in travelling
    copy = pickle.loads(travelling)
    assert (copy.name, copy.get_metrics_namespace()) == ("remote", "reelscribe/remote")
    assert dict(copy.batch_elements_kwargs()) == {"min_batch_size": 5, "max_batch_size": 5}
    assert copy.load_model() is teacher.load_model()
    assert KEY not in f"{teacher.settings} {teacher.model_key} {teacher.settings.wording()}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": ""}, "weights must name the model, as the endpoint knows it"),
        ({"url": ""}, "url must be an address, such as http://host:8000/v1, not ''"),
        ({"url": None}, "url must be an address, such as http://host:8000/v1, not None"),
        ({"url": "ftp://host/v1"}, "url must be an address, such as http://host:8000/v1, not 'ftp://host/v1'"),
        ({"url": "host:8000/v1"}, "url must be an address, such as http://host:8000/v1, not 'host:8000/v1'"),
        ({"url": "http://host:80000"}, "url must be an address, such as http://host:8000/v1, not 'http://host:80000'"),
        ({"url": "http://h /v1"}, "url must be an address, such as http://host:8000/v1, not 'http://h /v1'"),
        (
            {"url": "https://me:secret@host/v1"},
            "url must hold no user and no password; put the key into the variable that key_env names",
        ),
        ({"url": "https://host/v1?key=1"}, "url must end with its path, such as http://host:8000/v1, without ? and #"),
        (
            {"url": "http://host/v1/chat/completions"},
            "url must be the base, such as http://host:8000/v1, without /chat/completions",
        ),
        (
            {"key_env": KEY},
            "key_env must be the NAME of an environment variable, in capitals, never the key itself",
        ),
        ({"timeout_s": 0}, "timeout_s must be a number above 0, not 0"),
        ({"timeout_s": float("inf")}, "timeout_s must be a number above 0, not inf"),
        ({"attempts": 0}, "attempts must be a whole number from 1 up, not 0"),
        ({"concurrent": True}, "concurrent must be a whole number from 1 up, not True"),
        ({"requests_per_minute": -1}, "requests_per_minute must be a number above 0, not -1"),
        ({"request_fields": ["n"]}, "request_fields must be a mapping of names to values, not ['n']"),
        ({"request_fields": {"n": 2}}, "request_fields must not hold n; that follows from the other settings"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        settings_for(**{"url": "http://host/v1", **changes}).checked()


def test_wording_follows_what_shapes_an_answer_and_not_where_it_is_asked():
    wording = settings_for("http://host/v1").wording()
    assert settings_for("http://other/v1", concurrent=2, timeout_s=9.0, key_env="OTHER").wording() == wording
    assert settings_for("http://host/v1", request_fields={"top_p": 0.5}).wording() != wording


def test_settings_that_lack_what_a_profile_must_say_are_a_template_and_no_teacher():
    template = EndpointSettings(inputs="V-S-M", prompt="video-sentence")
    with pytest.raises(ValueError, match=r"^url must be an address, such as http://host:8000/v1, not ''$"):
        EndpointTeacher("remote", template)


def test_captions_say_what_was_asked_and_what_served_it():
    usual, one, named = (settings_for("http://h/v1", **changes) for changes in ({}, {"frames": 1}, {"revision": "r7"}))
    assert usual.prompt_id() == f"video-sentence-1/V/{usual.wording()}"
    assert one.prompt_id() == f"frame-sentence-1/V/{one.wording()}"
    assert (usual.version(), named.version()) == ("as served", "r7")


def write_prompt(folder) -> str:
    """A user's file of prompts; what a profile would say to mean the one in it."""
    file = folder / "mine.yaml"
    file.write_text("mine: {version: 1, request: Say what you see., request_with_text: Say what you see.}")
    return f"{file}#mine"


def test_unknown_prompt_and_prompt_without_a_line_for_the_inputs_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'video-sentence'"):
        EndpointTeacher("remote", settings_for("http://host/v1", prompt="video-sentense"))
    mine = write_prompt(tmp_path)
    with pytest.raises(ValueError, match=r"^the inputs V-S need a line \{subtitles\} in the prompt mine-1-"):
        EndpointTeacher("remote", settings_for("http://host/v1", prompt=mine, inputs="V-S"))


def test_prompt_of_the_user_s_file_travels_with_the_handler(server, clips, tmp_path):
    teacher = teacher_for(server, prompt=write_prompt(tmp_path))
    travelling = pickle.dumps(teacher)
    (tmp_path / "mine.yaml").unlink()
    ask(pickle.loads(travelling), clips[:1])
    assert server.questions[0].parts[-1]["text"] == "Say what you see."
    assert teacher.settings.prompt_id().startswith("mine-1-")
