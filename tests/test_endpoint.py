"""An endpoint that fails, in all the ways that endpoints do: what costs a clip, what is asked again, what raises."""

import logging
import pickle
import re
import socket
import time

import endpoint_asking
import pytest
from endpoint_asking import KEY, ask, captions, settings_for, teacher_for, told
from endpoint_server import (
    FRAMES,
    NO_CLIP,
    EndpointServer,
    caption_of,
    chat,
    drip,
    endless,
    hang,
    hang_up,
    says,
    status,
    write_clips,
)
from lite_media import clip_of

from model_handlers import endpoint
from model_handlers.endpoint import Bucket, backoff_s
from model_handlers.endpoint_answers import (
    EndpointError,
)
from model_handlers.endpoint_teacher import EndpointTeacher

server, quick = endpoint_asking.server, endpoint_asking.quick


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), 8)


def test_too_many_requests_are_asked_again_after_the_pause_that_was_asked_for(server, clips):
    server.plays[0] = [status(429, {"Retry-After": "1"})]
    assert captions(ask(teacher_for(server), clips[:1])) == [caption_of(0, FRAMES)]
    first, second = server.asked_about(0)
    assert 1.0 <= second.at - first.at < 4


def test_one_that_is_told_to_wait_makes_the_others_wait(server, clips):
    server.plays[0] = [status(429, {"Retry-After": "0.6"})]
    ask(teacher_for(server, concurrent=1), clips[:3])
    told_at = server.asked_about(0)[0].at
    assert all(server.asked_about(n)[0].at - told_at >= 0.6 for n in (1, 2))


@pytest.mark.parametrize("play", [status(500), status(503), hang_up(), status(408)])
def test_passing_trouble_is_asked_again(server, clips, play):
    server.plays[2] = [play] * 3
    assert captions(ask(teacher_for(server), clips[:4])) == [caption_of(n, FRAMES) for n in range(4)]
    assert [len(server.asked_about(n)) for n in range(4)] == [1, 1, 4, 1]


@pytest.mark.parametrize("code", [400, 413, 422])
def test_request_that_is_refused_costs_its_clip_and_is_not_repeated(server, clips, code):
    server.plays[1] = [status(code, message="cannot identify\n image file")]
    good_one, bad = ask(teacher_for(server), clips[:2])
    assert good_one.answer == caption_of(0, FRAMES)
    assert told(bad) == (
        None,
        "RequestRefused",
        f"the endpoint refuses this clip ({code}: cannot identify image file)",
    )
    assert len(server.asked_about(1)) == 1


def test_clip_that_is_never_answered_costs_itself_when_others_are(server, clips):
    server.plays[1] = [hang()] * 2
    began = time.monotonic()
    good_one, bad = ask(teacher_for(server, timeout_s=0.4, attempts=2), clips[:2])
    assert time.monotonic() - began < 10
    assert good_one.answer == caption_of(0, FRAMES)
    assert told(bad)[:2] == (None, "NoAnswer")
    what = rf"no answer after 2 requests in \d+ s; the last: {server.url} gave no whole answer within 0.4 s"
    assert re.fullmatch(what, bad.failure.message)


def test_answer_that_drips_is_cut_off_by_the_deadline(server, clips):
    server.plays[1] = [drip(0.05)]
    began = time.monotonic()
    _, bad = ask(teacher_for(server, timeout_s=0.5, attempts=1), clips[:2])
    assert time.monotonic() - began < 10
    assert bad.failure.message.endswith("gave no whole answer within 0.5 s")


def test_answer_without_an_end_is_not_read_to_its_end(server, clips):
    server.plays[1] = [endless()]
    _, bad = ask(teacher_for(server), clips[:2])
    assert told(bad) == (None, "BadAnswer", "the answer is longer than 1048576 bytes")
    assert "the answer was: {" in bad.failure.detail and len(bad.failure.detail) <= 4000
    assert server.poured_bytes < 30 << 20


@pytest.mark.parametrize(
    ("play", "error_class", "message"),
    [
        (says(b"<html>Welcome</html>"), "BadAnswer", "the answer is not a JSON object"),
        (says(b"[" * 200_000), "BadAnswer", "the answer is not a JSON object"),
        (says({"object": "chat.completion"}), "BadAnswer", "the answer has no choices"),
        (says(chat(None)), "BadAnswer", "the answer holds no text"),
        (
            says(chat("", "length")),
            "BadAnswer",
            "the answer ended before its first word; raise max_new_tokens",
        ),
        (says(chat("Half a", "content_filter")), "AnswerRefused", "its filter declined to caption this clip"),
        (
            says(chat(None, refusal="I will not look at \ud800this.")),
            "AnswerRefused",
            "the model declined to caption this clip",
        ),
        (says(b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}), "BadAnswer", "the answer is not a JSON object"),
        (says(chat("I'm sorry, but I can't see the video.")), "UnusableAnswer", None),
    ],
)
def test_answer_that_is_no_caption_costs_its_clip(server, clips, play, error_class, message):
    server.plays[1] = [play]
    good_one, bad = ask(teacher_for(server), clips[:2])
    assert good_one.answer == caption_of(0, FRAMES)
    assert (bad.answer, bad.failure.error_class) == (None, error_class)
    assert message in (None, bad.failure.message)
    bad.failure.detail.encode()
    assert len(server.asked_about(1)) == 1


def test_refusal_keeps_what_the_model_said(server, clips):
    server.plays[0] = [says(chat(None, refusal="I will not look at this."))]
    (bad,) = ask(teacher_for(server), clips[:1])
    assert bad.failure.detail.rstrip().endswith("the answer was: I will not look at this.")


def test_answer_that_was_cut_off_loses_its_unfinished_sentence(server, clips):
    server.plays[0] = [says(chat("A dog runs along a beach. It carries a", "length"))]
    assert captions(ask(teacher_for(server), clips[:1])) == ["A dog runs along a beach."]


def test_clip_without_a_reel_costs_itself_and_nothing_is_asked_about_it(server, clips, tmp_path):
    lost = clip_of(str(tmp_path / "none.arrow"), 4, "clip-lost")
    bad, good_one = ask(teacher_for(server), [lost, clips[1]])
    assert good_one.answer == caption_of(1, FRAMES)
    assert told(bad)[:2] == (None, "ReelError")
    assert len(server.questions) == 1


def test_clip_that_kills_the_endpoint_each_time_costs_itself_even_alone(server, clips):
    server.plays[0] = [status(500)] * 2
    (bad,) = ask(teacher_for(server, attempts=2), clips[:1])
    assert told(bad)[:2] == (None, "NoAnswer")
    assert bad.failure.message.endswith(f"the last: {server.url} is not able to answer (500: not now)")
    # The third question asked whether it answers at all.
    assert [(question.clip, question.body["max_tokens"]) for question in server.questions] == [
        (0, 64),
        (0, 64),
        (NO_CLIP, 1),
    ]


def test_endpoint_that_answers_nobody_raises(server, clips):
    server.usual = status(503)
    with pytest.raises(EndpointError, match=r"none of 3 clips was answered: no answer after 2 requests in .*503"):
        ask(teacher_for(server, attempts=2), clips[:3])


def test_missing_reel_is_no_sign_that_the_endpoint_answers(server, clips, tmp_path):
    server.usual = status(503)
    lost = clip_of(str(tmp_path / "none.arrow"), 4, "clip-lost")
    with pytest.raises(EndpointError, match="none of 1 clips was answered"):
        ask(teacher_for(server, attempts=1), [lost, clips[0]])


def test_endpoint_that_is_not_there_raises_in_one_line(clips):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    teacher = EndpointTeacher("remote", settings_for(url, attempts=2))
    with pytest.raises(EndpointError) as raised:
        ask(teacher, clips[:2])
    assert str(raised.value).startswith("none of 2 clips was answered: no answer after 2 requests in ")
    assert f"{url} can't be reached: " in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("play", "message"),
    [
        (
            status(401, message=f"Incorrect API key provided: {KEY}"),
            "{url} wants a key (401: Incorrect API key provided: [key]); "
            "set OPENAI_API_KEY to a valid key on every worker",
        ),
        (
            status(403, message="no access"),
            "{url} forbids it (403: no access); check what the key in OPENAI_API_KEY may use",
        ),
        (
            status(404, message="The model `tiny` does not exist."),
            "{url} has no model 'tiny' (404: The model `tiny` does not exist.); "
            "check weights, and url, which often ends in /v1",
        ),
        (
            status(429, message="You exceeded your quota", code="insufficient_quota"),
            "{url} has no credit left for the key in OPENAI_API_KEY (429: You exceeded your quota)",
        ),
        (
            status(405, message="no"),
            "{url} answers in an unknown way (405: no); check that it is the base of a chat endpoint",
        ),
    ],
)
def test_wrong_configuration_raises_in_one_line_that_says_what_to_check(
    server, clips, monkeypatch, caplog, play, message
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.usual = play
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EndpointError) as raised:
        ask(teacher_for(server, concurrent=1), clips[:6])
    assert str(raised.value) == message.format(url=server.url)
    assert len(server.questions) == 1
    assert KEY not in caplog.text


def test_redirect_is_not_followed_and_the_key_goes_nowhere_else(server, clips, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with EndpointServer() as other:
        server.usual = status(307, {"Location": f"{other.url}/chat/completions?token=1"})
        with pytest.raises(EndpointError) as raised:
            ask(teacher_for(server), clips[:1])
        assert other.questions == []
    place = f"{other.url}/chat/completions"
    assert str(raised.value) == f"{server.url} redirects to {place}, where no key is sent; write that into url"


def test_key_that_cannot_be_sent_is_not_shown(server, clips, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nand more")
    with pytest.raises(EndpointError, match=r"^OPENAI_API_KEY holds no key but a text with blanks or odd characters$"):
        ask(teacher_for(server), clips[:1])
    assert server.questions == []


def test_answers_that_were_paid_for_are_not_asked_for_again(server, clips):
    server.plays[4] = [status(401)]
    server.plays[2] = [says(chat("", "length"))]
    teacher = teacher_for(server, concurrent=1)
    with pytest.raises(EndpointError, match="wants a key"):
        ask(teacher, clips[:6])
    assert [question.clip for question in server.questions] == [0, 1, 2, 3, 4]
    # The runner tries again, in another batch and with a new copy of the handler.
    outcomes = ask(pickle.loads(pickle.dumps(teacher)), clips[:8])
    assert [question.clip for question in server.questions[5:]] == [4, 5, 6, 7]
    assert captions(outcomes) == [None if n == 2 else caption_of(n, FRAMES) for n in range(8)]
    # Once delivered, they are forgotten.
    ask(teacher, clips[:1])
    assert len(server.asked_about(0)) == 2


def test_rate_is_held_over_batches(server, clips):
    teacher = teacher_for(server, requests_per_minute=240)
    ask(teacher, clips[:5])
    ask(pickle.loads(pickle.dumps(teacher)), clips[5:8])
    times = [question.at for question in server.questions]
    # Four at once, as there was a pause before them; then four a second.
    assert times[-1] - times[0] >= 0.95


def test_bucket_lets_a_second_s_worth_through_and_then_as_many_as_the_rate():
    bucket = Bucket(120, now=10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]
    assert bucket.take(11.5) == 0.0
    assert bucket.take(100.0) == 0.0
    slow = Bucket(6, now=0.0)
    assert [slow.take(0.0), slow.take(0.0), slow.take(4.0)] == [0.0, 10.0, 16.0]


def test_pause_doubles_up_to_a_minute_and_is_never_shorter_than_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_DELAY_S", 1.0)
    for attempt, middle in [(0, 1.0), (1, 2.0), (4, 16.0), (9, 60.0)]:
        pauses = [backoff_s(attempt, None) for _ in range(50)]
        assert middle * 0.75 <= min(pauses) < max(pauses) <= middle * 1.25
    assert 20.0 <= backoff_s(0, 20.0) <= 21.0


def test_pause_that_exceeds_all_patience_is_not_waited_for(server, clips):
    server.plays[1] = [status(429, {"Retry-After": "86400"})]
    began = time.monotonic()
    _, bad = ask(teacher_for(server), clips[:2])
    assert time.monotonic() - began < 10
    assert told(bad)[1] == "NoAnswer"
    assert len(server.asked_about(1)) == 1
