"""A key of an endpoint out of Secret Manager: read by the worker, sent to the endpoint, and shown nowhere."""

import base64
import functools
import json
import logging
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import endpoint_asking
import pytest
import yaml
from endpoint_asking import KEY, ask, settings_for, teacher_for
from endpoint_server import EndpointServer, status, write_clips
from google.auth.credentials import AnonymousCredentials
from google.cloud import secretmanager
from google.cloud.secretmanager_v1.services.secret_manager_service.transports.rest import (
    SecretManagerServiceRestTransport,
)

from beam_pipeline.config import load_config
from model_handlers import endpoint
from model_handlers.endpoint_answers import EndpointError
from model_handlers.endpoint_keys import read_secret

server, quick = endpoint_asking.server, endpoint_asking.quick
NAME = "projects/proj-test/secrets/vendor-key/versions/latest"


class Secrets:
    """Secret Manager's REST interface, as far as it is asked; `code` is what it answers with."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.code, self.content, self.pause = 200, KEY.encode() + b"\n", threading.Event()
        ours = self

        class Visitor(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ours.asked.append(self.path.partition("?")[0])
                ours.pause.wait(0.0 if ours.code != 0 else 30.0)
                payload = {"data": base64.b64encode(ours.content).decode()}
                told = {"name": NAME, "payload": payload} if ours.code == 200 else {"error": {"message": "no"}}
                body = json.dumps(told).encode()
                self.send_response(ours.code or 500)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Visitor)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def client(self) -> secretmanager.SecretManagerServiceClient:
        host = f"127.0.0.1:{self.http.server_port}"
        transport = SecretManagerServiceRestTransport(host=host, credentials=AnonymousCredentials(), url_scheme="http")
        return secretmanager.SecretManagerServiceClient(transport=transport)


@pytest.fixture
def secrets() -> Iterator[Secrets]:
    running = Secrets()
    yield running
    running.pause.set()
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def asking(secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Endpoints ask this one."""
    monkeypatch.setattr(endpoint, "read_secret", functools.partial(read_secret, client=secrets.client))
    return secrets


def test_a_secret_is_read_once_a_worker_and_goes_with_every_request_instead_of_the_variable(
    asking, server: EndpointServer, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    teacher = teacher_for(server, key_secret=NAME)
    clips = write_clips(tmp_path, 3)
    assert [outcome.failure for outcome in ask(teacher, clips) + ask(teacher, clips[:1])] == [None] * 4
    sent = {question.headers["Authorization"] for question in server.questions}
    assert (sent, asking.asked) == ({f"Bearer {KEY}"}, [f"/v1/{NAME}:access"])


def test_the_key_shows_in_no_handler_setting_record_log_or_error(
    asking, server: EndpointServer, tmp_path, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    teacher = teacher_for(server, key_secret=NAME)
    clips = write_clips(tmp_path, 2)
    ask(teacher, clips)
    server.usual = status(401, message=f"Incorrect API key provided: {KEY}")
    with pytest.raises(EndpointError) as caught:
        ask(teacher, clips)
    assert NAME in str(caught.value)
    config = {"extends": "lite", "teachers": [{"name": "t", "like": "endpoint", "url": server.url, "weights": "m"}]}
    config["teachers"][0]["key_secret"] = NAME
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    recorded = json.dumps(load_config(file=str(tmp_path / "config.yaml")).as_json())
    assert NAME in recorded
    told = capfd.readouterr()
    everything = [
        *(repr(teacher), repr(teacher.settings), teacher.model_key, repr(teacher.load_model())),
        *(recorded, caplog.text, told.out, told.err, str(caught.value), repr(caught.value)),
        pickle.dumps(teacher).decode("latin-1"),
    ]
    assert [one for one in everything if KEY in one] == []


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (403, f"{NAME} may not be read; it takes the role roles/secretmanager.secretAccessor on the secret"),
        (404, f"there is no {NAME}; gcloud secrets versions list shows those there are"),
    ],
)
def test_what_to_do_is_told_where_a_secret_cannot_be_read(secrets, code, told):
    secrets.code = code
    with pytest.raises(EndpointError) as caught:
        read_secret(NAME, secrets.client)
    assert str(caught.value) == told


def test_a_service_that_stumbles_is_asked_again_and_given_up_at_the_deadline(secrets):
    secrets.code = 503
    with pytest.raises(EndpointError, match=f"^{NAME} cannot be read now: "):
        read_secret(NAME, secrets.client, deadline_s=2.5)
    assert len(secrets.asked) > 1


def test_a_service_that_says_nothing_is_given_up_at_the_deadline(secrets):
    secrets.code = 0
    with pytest.raises(EndpointError, match=f"^{NAME} cannot be read now: "):
        read_secret(NAME, secrets.client, deadline_s=0.5)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"two words", b"a\nb"])
def test_a_secret_that_is_no_key_is_refused_without_being_shown(secrets, content):
    secrets.content = content
    with pytest.raises(EndpointError, match=r"versions/latest holds no key but a text with blanks or odd characters"):
        read_secret(NAME, secrets.client)


@pytest.mark.parametrize("written", [KEY, "vendor-key", f"{NAME}/x", "projects/p-test/secrets/s", 7])
def test_a_key_that_was_written_where_its_secrets_name_belongs_is_refused_and_not_repeated(written):
    with pytest.raises(ValueError) as caught:
        settings_for("http://host/v1", key_secret=written)
    assert str(caught.value) == (
        "key_secret must be projects/PROJECT/secrets/NAME/versions/VERSION, never the key itself"
    )


def test_where_the_key_is_kept_is_no_part_of_the_wording():
    wording = settings_for("http://host/v1").wording()
    assert settings_for("http://host/v1", key_secret=NAME).wording() == wording
