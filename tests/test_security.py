"""What strangers' files cannot do, as SECURITY.md claims it; and that each claim there names a test that exists."""

import ast
import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import pickle
import re
import socket
import struct
import threading
from collections.abc import Iterator

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from synthetic import make_video

from beam_pipeline.config import ConfigError, load_config
from model_handlers.inert_yaml import MAX_CHARACTERS, MAX_VALUES, read_inert
from transforms import manifests
from transforms.child import Limits, decode
from transforms.detection import SplittingConfig
from transforms.manifests import read_manifest
from transforms.media_errors import MediaError
from transforms.sources import InputError

ROOT = pathlib.Path(__file__).parents[1]
_IN_OPEN, _IN_NONBLOCK = 0x20, 0o4000


def test_every_test_that_security_md_names_exists():
    told = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(test_\w+)\.(test_\w+)`", told)
    assert len(named) == len(re.findall(r"`test_", told)) > 25, "each is named as `module.function`"
    there = {
        (path.stem, one.name)
        for path in (ROOT / "tests").glob("test_*.py")
        for one in ast.walk(ast.parse(path.read_text()))
        if isinstance(one, ast.FunctionDef)
    }
    assert sorted(set(named) - there) == []


def test_every_cannot_of_the_threat_model_names_its_test():
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")]
    without = [row for row in rows[1:] if "| cannot" in row and "`test_" not in row]
    assert without == []


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """An address of this machine, and what was heard there."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    heard.append(connection.recv(100))
                    connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", heard
        server.shutdown(socket.SHUT_RDWR)


class Watched:
    """How often a file was opened, by the kernel's word."""

    def __init__(self, path: pathlib.Path):
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(_IN_NONBLOCK)
        assert libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_OPEN) > 0

    def opened(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._descriptor, 4096))
        return False


def with_external_pictures(movie: bytes, target: str) -> bytes:
    """A QuickTime film whose pictures are said to be in another file: an alias in the box `dref`."""
    at = movie.index(b"dref") - 4
    # The alias record of a Macintosh: a volume, a name and levels of folders, then kind 2, the path from the volume on.
    path = ("disk" + target.replace("/", ":")).encode()
    record = bytes(10) + b"\4disk" + bytes(23) + bytes(12) + b"\1a" + bytes(62) + bytes(16) + bytes(4) + bytes(16)
    record += struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2) + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I", 12 + len(record)) + b"alis" + struct.pack(">I", 0) + record
    old = struct.unpack(">I", movie[at : at + 4])[0]
    box = struct.pack(">I", 16 + len(entry)) + b"dref" + struct.pack(">II", 0, 1) + entry
    made = bytearray(movie[:at] + box + movie[at + old :])
    for name in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = movie.rindex(name, 0, at) - 4
        size = struct.unpack(">I", made[start : start + 4])[0]
        made[start : start + 4] = struct.pack(">I", size + len(box) - old)
    return bytes(made)


#: What points elsewhere, by the name it is uploaded under. {web} listens, {file} must not be opened.
POINTING = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nhttp://{web}/a.ts\n#EXTINF:10,\n{file}\n#EXT-X-ENDLIST\n",
    "hls.mp4": "#EXTM3U\n#EXTINF:10,\nfile://{file}\n#EXT-X-ENDLIST\n",
    "hls-key.ts": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="http://{web}/key"\n#EXTINF:10,\n{file}\n',
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1" bandwidth="1"><BaseURL>http://{web}/a.mp4</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
    "list.ffconcat": "ffconcat version 1.0\nfile '{file}'\nfile 'http://{web}/a.mp4'\n",
    "concat.mkv": "ffconcat version 1.0\nfile '{file}'\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "addresses.asx": '<asx version="3.0"><entry><ref href="http://{web}/a.wmv"/></entry></asx>',
    "reference.mov": "rtsptextRTSP://{web}/a.mov",
    "old.ram": "rtsp://{web}/a.rm\nhttp://{web}/b.rm\n",
    "pattern%03d.mp4": "{file}",
    "subfile,,start,0,end,0,,:x.mp4": "{file}",
    "data:text;base64,aGVsbG8=.mp4": "{file}",
    "crypto+http:x.mp4": "http://{web}/a.mp4",
    "script.avs": 'AviSource("{file}")',
    "captions.mp4": "<smil><video src='http://{web}/a.mp4'/></smil>",
}


@pytest.fixture
def canary(tmp_path: pathlib.Path) -> tuple[pathlib.Path, Watched]:
    """A real video that nobody named."""
    (tmp_path / "private").mkdir()
    path = make_video(tmp_path / "private" / "canary.ts", shots=[(1.0, "red")])
    return path, Watched(path)


def split(path: pathlib.Path) -> dict:
    config = dataclasses.asdict(SplittingConfig())
    return decode("split", {"path": str(path), "reel": f"{path}.arrow", "etag": "1-1", "config": config}, Limits())


def test_the_watch_on_the_canary_tells_when_it_is_opened(canary):
    path, watched = canary
    assert watched.opened() is False
    assert len(split(path)["shots"]) == 1
    assert watched.opened() is True


def test_no_video_has_the_decoder_open_an_address_or_another_file(tmp_path, canary):
    """One decoding process over all of them, as a worker has it."""
    path, watched = canary
    (tmp_path / "up").mkdir()
    with listening() as (web, heard):
        host, _, port = web.partition(":")
        for name, text in POINTING.items():
            upload = tmp_path / "up" / name.replace("/", "_")
            upload.write_text(text.format(web=web, file=path, host=host, port=port))
            with pytest.raises(MediaError):
                split(upload)
            assert (name, heard, watched.opened()) == (name, [], False)


def test_a_film_whose_pictures_are_in_another_file_does_not_get_at_them(tmp_path, canary):
    path, watched = canary
    whole = make_video(tmp_path / "whole.mov", shots=[(1.0, "blue")])
    film = tmp_path / "film.mov"
    film.write_bytes(with_external_pictures(whole.read_bytes(), str(path)))
    with contextlib.suppress(MediaError):
        split(film)
    assert watched.opened() is False
    # To show that there is something to be kept from: the library does open it when it is told to.
    careless = {"enable_drefs": "1", "use_absolute_path": "1"}
    with contextlib.suppress(av.error.FFmpegError), av.open(str(film), container_options=careless) as container:
        next(container.decode(video=0))
    assert watched.opened() is True


LAUGHS = ", ".join(f"&{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True))

MERGED = ", ".join(
    f"&{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
PAIRED = ", ".join(
    f"&{new} !!pairs [{', '.join([f'x: *{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("card:\n  title: [&a [x, x, x], " + LAUGHS + "]\n", f"it stands for more than {MAX_VALUES:,} values"),
        ("card:\n  title: [&a {x: 1}, " + MERGED + "]\n", f"it stands for more than {MAX_VALUES:,} values"),
        ("card:\n  title: [&a [x, x, x], " + PAIRED + "]\n", f"it stands for more than {MAX_VALUES:,} values"),
        ("teachers: &t [*t]\n", "or for itself"),
        ("abstain_below: 1" + ":1" * 100_000 + "\n", "a number has more than 1,000 digits"),
        ("card: {title: 2026-02-30}\n", "a value is not what it looks like or its tag says: day "),
        ("card: {title: !!timestamp soon}\n", "a value is not what it looks like or its tag says"),
        ("teachers: " + "[" * 20_000, "it is nested too deeply"),
        ("teachers: !!python/object/apply:os.system ['true']\n", "could not determine a constructor for the tag"),
        ("#" * (MAX_CHARACTERS + 1), f"it has more than {MAX_CHARACTERS:,} characters"),
    ],
    ids=["bomb", "merges", "pairs", "itself", "number", "day", "tag", "deep", "object", "long"],
)
def test_a_configuration_holds_plain_values_and_no_more_than_somebody_would_write(tmp_path, text, told):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        load_config(file=str(tmp_path / "config.yaml"))
    assert len(str(caught.value)) < 500


def test_what_somebody_would_write_is_read_as_ever():
    text = "base: &base {a: 1}\nmore: {<<: *base, b: [1, two, null]}\n"
    assert read_inert(text) == yaml.safe_load(text)


class Planted:
    """Unpickled, it writes a file."""

    def __init__(self, path: pathlib.Path):
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


def test_a_model_directory_runs_no_code_of_its_own_and_unpickles_nothing(tmp_path):
    import torch

    from model_handlers.devices import Device
    from model_handlers.pretrained import load_model, load_part
    from model_handlers.settings import Settings
    from model_handlers.weights import WeightsError

    folder, planted = tmp_path / "model", tmp_path / "planted"
    folder.mkdir()
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(planted)!r})\nclass Evil: pass\n")
    classes = {name: "evil.Evil" for name in ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor")}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": classes}))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Evil", "auto_map": classes}))
    settings = Settings(weights=str(folder))
    for load in (
        lambda: load_model("AutoModelForImageTextToText", settings, Device("cpu", torch.float32)),
        lambda: load_part("AutoProcessor", settings),
        lambda: load_part("AutoConfig", settings),
    ):
        with pytest.raises(WeightsError):
            load()
    known = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 9}
    (folder / "config.json").write_text(json.dumps(known))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(planted)))
    with pytest.raises(WeightsError):
        load_model("AutoModel", settings, Device("cpu", torch.float32))
    assert planted.exists() is False


def test_a_parquet_manifest_is_read_batch_by_batch_whatever_it_stands_for(tmp_path):
    """Half a megabyte of equal rows stands for five gigabytes; only those that are asked for are made."""
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000_000, pa.int32()), pa.array(["x" * 1000 + ".mp4"]))
    pq.write_table(pa.table({"uri": column}), path)
    assert path.stat().st_size < 1_000_000
    before = pa.total_allocated_bytes()
    rows = read_manifest(str(path))
    assert len(next(rows).columns["uri"]) == len(str(tmp_path)) + 1 + 1004
    assert pa.total_allocated_bytes() - before < 100 << 20
    rows.close()


def test_a_parquet_manifests_row_is_no_longer_than_somebody_would_write(tmp_path, monkeypatch):
    """Kilobytes that stand for gigabytes: in each row of a batch, and in them all."""
    path = tmp_path / "bomb.parquet"
    title = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 4_000_000]))
    pq.write_table(pa.table({"uri": [f"{at}.mp4" for at in range(1000)], "title": title}), path, compression="zstd")
    assert path.stat().st_size < 10_000
    before, rows = pa.total_allocated_bytes(), read_manifest(str(path))
    assert len(next(rows).columns["title"]) == 4_000_000
    assert pa.total_allocated_bytes() - before < 100 << 20
    rows.close()
    monkeypatch.setattr(manifests, "MAX_CHARACTERS", 10_000_000)
    with pytest.raises(InputError, match="it stands for more than 10,000,000 characters; part it"):
        list(read_manifest(str(path)))
    monkeypatch.setattr(manifests, "MAX_METADATA_CHARACTERS", 3_999_999)
    with pytest.raises(InputError, match="a field is longer than 3,999,999 characters"):
        list(read_manifest(str(path)))


def test_a_parquet_manifests_columns_are_texts(tmp_path):
    for column in (pa.array([["abc"]]), pa.array([b"abc"], pa.binary(3)), pa.array([{"uri": "abc"}])):
        pq.write_table(pa.table({"uri": column}), tmp_path / "a.parquet")
        with pytest.raises(InputError, match=r"its column 'uri' holds .*, not texts"):
            list(read_manifest(str(tmp_path / "a.parquet")))


@pytest.mark.parametrize("name", ["long.jsonl", "long.csv"])
def test_a_manifests_line_without_an_end_is_not_read_to_its_end(tmp_path, monkeypatch, name):
    monkeypatch.setattr(manifests, "MAX_METADATA_CHARACTERS", 1000)
    (tmp_path / name).write_text("uri\n" * name.endswith("csv") + '{"uri": "' + "x" * 10_000)
    with pytest.raises(InputError, match="a line is longer than 4,000 characters"):
        list(read_manifest(str(tmp_path / name)))
