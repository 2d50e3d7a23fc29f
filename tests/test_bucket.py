"""Weights in a bucket, read by Google's own client from a server in this process."""

import base64
import hashlib
import http.server
import json
import os
import pathlib
import threading
import urllib.parse

import pytest

from model_handlers.bucket import fetch, fetch_folder, version_of_folder
from model_handlers.checkpoints import locate
from model_handlers.weights import WeightsError

storage = pytest.importorskip("google.cloud.storage", reason="needs the extra gcp")


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """{name: (generation, content)} behind the JSON API; `asked` counts downloads."""
    objects, asked = {}, []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            place = urllib.parse.urlparse(self.path).path
            if place.endswith("/o"):
                prefix = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query).get("prefix", [""])[0]
                below = [
                    {"name": name, "bucket": "models", "generation": str(generation)}
                    for name, (generation, _) in objects.items()
                    if name.startswith(prefix)
                ]
                return self._answer(200, json.dumps({"items": below}).encode())
            name = urllib.parse.unquote(place.rpartition("/o/")[2])
            if name not in objects:
                return self._answer(404, b'{"error": {"code": 404, "message": "no such object"}}')
            generation, content = objects[name]
            if place.startswith("/download/"):
                asked.append(name)
                return self._answer(200, content)
            digest = base64.b64encode(hashlib.md5(content).digest()).decode()
            about = {"name": name, "bucket": "models", "generation": str(generation), "md5Hash": digest}
            return self._answer(200, json.dumps({**about, "size": str(len(content))}).encode())

        def _answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield objects, asked
    server.shutdown()
    server.server_close()


def test_an_object_is_fetched_once_and_anew_when_it_was_replaced(bucket):
    objects, asked = bucket
    objects["lpips/alex.safetensors"] = (1, b"first")
    path = fetch("gs://models/lpips/alex.safetensors")
    assert path.endswith("/alex.safetensors") and pathlib.Path(path).read_bytes() == b"first"
    assert fetch("gs://models/lpips/alex.safetensors") == path and len(asked) == 1
    objects["lpips/alex.safetensors"] = (2, b"second")
    assert pathlib.Path(fetch("gs://models/lpips/alex.safetensors")).read_bytes() == b"second"
    assert pathlib.Path(path).read_bytes() == b"first"


def test_a_folder_is_copied_once_a_version_and_only_what_is_wanted(bucket):
    objects, asked = bucket
    objects["blip/config.json"] = (1, b"{}")
    objects["blip/text/vocab.txt"] = (1, b"a")
    objects["blip/weights.bin"] = (1, b"pickled")
    objects["blip-2/config.json"] = (1, b"{}")
    folder = pathlib.Path(locate("gs://models/blip").path)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "config.json",
        "text/vocab.txt",
    ]
    before = version_of_folder("gs://models/blip", lambda path: True)
    assert locate("gs://models/blip/").path == str(folder) and len(asked) == 2
    objects["blip/text/vocab.txt"] = (2, b"b")
    assert version_of_folder("gs://models/blip", lambda path: True) != before
    assert (pathlib.Path(locate("gs://models/blip").path) / "text/vocab.txt").read_bytes() == b"b"
    assert (folder / "text/vocab.txt").read_bytes() == b"a"


def test_an_object_whose_name_climbs_out_of_the_cache_is_not_copied(bucket, tmp_path):
    objects, _ = bucket
    objects["m/../../../evil.json"] = (1, b"x")
    with pytest.raises(WeightsError, match=r"^there is no checkpoint below gs://models/m$"):
        fetch_folder("gs://models/m", lambda path: True)
    assert list(tmp_path.rglob("evil.json")) == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [("gs://models/absent.pth", "^there is no gs://models/absent.pth$"), ("gs://models", "write gs://BUCKET/OBJECT")],
)
def test_what_is_not_there_is_told_in_a_line(bucket, uri, words):
    with pytest.raises(WeightsError, match=words):
        fetch(uri)


def test_without_credentials_the_command_that_gives_them_is_told(monkeypatch):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(WeightsError, match="run: gcloud auth application-default login"):
        fetch("gs://models/alex.safetensors")


def test_a_persons_credentials_need_no_project(bucket, monkeypatch):
    """As `gcloud auth application-default login` leaves them, where no project was ever set."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    objects, _ = bucket
    objects["m/config.json"] = (7, b"{}")
    # Not as an emulator's, with which the client is content without a project.
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", os.environ["STORAGE_EMULATOR_HOST"])
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), None))
    assert pathlib.Path(fetch("gs://models/m/config.json")).read_bytes() == b"{}"
