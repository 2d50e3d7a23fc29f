"""What an endpoint says, and whose fault it is: tables."""

import pickle
import re

import pytest

from model_handlers.endpoint_answers import (
    AnswerRefused,
    BadAnswer,
    EndpointError,
    NoAnswer,
    Reply,
    Told,
    judge,
    read_reply,
    retry_after,
)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("2", 2.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("nan", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:01:30 GMT", 30.0),
    ],
)
def test_retry_after_is_read_in_both_forms(header, seconds):
    assert retry_after(header, now=60.0) == seconds


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"choices":[{"message":{"content":"A dog."}}],"usage":{"completion_tokens":3}}', Reply("A dog.", 3)),
        (b'{"choices":[{"message":{"content":"A dog."}}],"usage":{"completion_tokens":-3}}', Reply("A dog.", 0)),
        (b'{"choices":[{"message":{"content":"A dog.\\ud83d"}}]}', Reply("A dog.", 0)),
    ],
)
def test_reply_is_read(body, expected):
    assert read_reply(body) == expected


@pytest.mark.parametrize("body", [b"", b"null", b"\xff\xfe", b'{"choices":[]}', b'{"choices":[7]}', b'{"choices":{}}'])
def test_whatever_else_is_said_is_a_bad_answer(body):
    with pytest.raises(BadAnswer):
        read_reply(body)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"error": {"message": "too  long", "code": 400}}', "too long"),
        (b'{"object": "error", "message": "too long"}', "too long"),
        (b'{"detail": "too long"}', "too long"),
        (b'{"detail": [{"loc": ["body"], "msg": "too long"}]}', '[{"loc": ["body"], "msg": "too long"}]'),
        (b"<h1>too long</h1>", "<h1>too long</h1>"),
    ],
)
def test_server_s_sentence_is_found_in_any_usual_form(body, sentence):
    with pytest.raises(ValueError, match=re.escape(f"the endpoint refuses this clip (400: {sentence})")):
        judge(Told(400, body), "http://host/v1", "tiny", "")


def test_errors_survive_the_way_between_processes():
    for error in (EndpointError("down"), NoAnswer("late", 2.0, True), AnswerRefused("no", "raw")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
