"""Checkpoints of Unmasked Teacher: every tensor is accounted for, and nothing in them is run; see `test_umt.py`."""

import argparse
import collections
import dataclasses
import hashlib
import importlib
import json
import math
import pathlib
import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from umt_weights_maker import (
    TINY,
    all_pairs,
    pictures,
    pretraining_tensors,
    retrieval_tensors,
    write_checkpoint,
    write_tokenizer,
)

from model_handlers.umt_network import B16, L16
from model_handlers.umt_scoring import Umt
from model_handlers.umt_weights import layout, load_network, read_tensors, sizes_of
from model_handlers.weights import WeightsError

GOLDEN = json.loads((pathlib.Path(__file__).parent / "umt_golden.json").read_text("utf-8"))
FOUR_FRAMES = next(golden for golden in GOLDEN["network"] if golden["case"] == "4 frames")
#: What no tensor tells.
UNTOLD = {"side": TINY.side, "head_width": TINY.head_width}


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32_and_narrows_the_matrices_alone(tmp_path, dtype):
    pinned = write_checkpoint(tmp_path / "tame.pth", retrieval_tensors(gain=1.0))
    whole, half = (
        load_network(str(tmp_path / "tame.pth"), sha256=pinned, dtype=lower, **UNTOLD) for lower in (None, dtype)
    )
    for scores, wanted in zip(all_pairs(half, 4), all_pairs(whole, 4), strict=True):
        np.testing.assert_allclose(scores, wanted, rtol=0, atol=5e-3)
    kinds = {name: kept.dtype for name, kept in half.tensors.items()}
    assert {name for name, kind in kinds.items() if kind != dtype} == {
        name
        for name, shape in layout(TINY).items()
        if len(shape) < 2 or "_embeddings." in name or name.startswith(("vision_proj", "text_proj", "itm_head"))
    }


@pytest.mark.parametrize(("sizes", "parameters"), [(B16, 202_411_267), (L16, 659_747_331)])
def test_published_sizes_have_as_many_parameters_as_the_authors_models(sizes, parameters):
    assert sum(math.prod(shape) for shape in layout(sizes).values()) == parameters


@pytest.mark.parametrize("sizes", [B16, L16, dataclasses.replace(TINY, side=224, head_width=64, tubelet=2)])
def test_sizes_are_told_by_the_shapes(sizes):
    shapes = {name: torch.empty(shape, device="meta") for name, shape in layout(sizes).items()}
    assert sizes_of("l16.pth", shapes) == sizes


@pytest.mark.parametrize("made", [retrieval_tensors, pretraining_tensors])
@pytest.mark.parametrize("form", ["pth", "safetensors", "bare", "old"])
def test_both_layouts_load_from_both_kinds_of_file(tmp_path, made, form):
    path = tmp_path / ("l16.safetensors" if form == "safetensors" else "l16.pth")
    pinned = None
    if form == "pth":
        beside = {"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 2e-5}]}, "epoch": 9}
        pinned = write_checkpoint(path, made(), **beside)
    elif form != "safetensors":
        torch.save(made(), path, _use_new_zipfile_serialization=form == "bare")
        pinned = digest_of(path)
    else:
        save_file(made(), path)
    loaded = load_network(str(path), sha256=pinned, **UNTOLD)
    assert loaded.sizes == TINY
    assert loaded.temperature == pytest.approx(0.07)
    np.testing.assert_allclose(all_pairs(loaded, 4)[1], FOUR_FRAMES["vtm"], rtol=0, atol=1e-5)


def test_settings_of_the_authors_in_a_checkpoint_are_read_as_inert_ones(tmp_path, monkeypatch):
    # Their class, here as theirs a dictionary whose entries are attributes as well, is gone when the file is read.
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "easydict.py").write_text("class EasyDict(dict): pass\n")
    with monkeypatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        kept = importlib.import_module("utils.easydict").EasyDict(num_frames=12)
        kept.num_frames = 12
        pinned = write_checkpoint(tmp_path / "l16.pth", retrieval_tensors(), config=kept)
    for name in ("utils", "utils.easydict"):
        monkeypatch.delitem(sys.modules, name)
    assert load_network(str(tmp_path / "l16.pth"), sha256=pinned, **UNTOLD).sizes == TINY


def test_checkpoint_that_holds_another_class_says_how_to_strip_it(tmp_path):
    path = tmp_path / "l16.pth"
    pinned = write_checkpoint(path, retrieval_tensors(), args=argparse.Namespace(lr=1))
    with pytest.raises(WeightsError) as failed:
        load_network(str(path), sha256=pinned, **UNTOLD)
    stripping = f"torch.save({{'model': torch.load('{path}', weights_only=False)['model']}}, 'stripped.pth')"
    assert str(failed.value) == (
        f"{path} holds argparse.Namespace beside its tensors, and unpickling that could run anything; if you trust the "
        "file, where the code that wrote it can be imported, write the tensors alone and pin the new file: "
        f'python -c "import torch; {stripping}"'
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"itm_head.bias": None}, "it lacks itm_head.bias"),
        (
            {"vision_encoder.encoder.blocks.1.gamma_1": torch.ones(64)},
            "nobody knows its vision_encoder.encoder.blocks.1",
        ),
        (
            {"vision_encoder.encoder.pos_embed": torch.ones(1, 65, 64)},
            "nobody knows its vision_encoder.encoder.pos_embed",
        ),
        ({"text_proj.weight": torch.ones(24, 47)}, r"its text_proj.weight has the shape \(24, 47\), not \(24, 48\)"),
        (
            {"text_encoder.encoder.layer.2.output.dense.bias": None},
            "it lacks text_encoder.encoder.layer.2.output.dense",
        ),
        ({"vision_proj.weight": None}, "is no Unmasked Teacher for retrieval: it has no fitting vision_proj.weight"),
        (
            {name: None for name in layout(TINY) if "crossattention" in name},
            "is no Unmasked Teacher for retrieval: it has no fitting text_encoder.encoder.layer.N.crossattention",
        ),
        (
            {name: None for name in layout(TINY) if "norm1" in name},
            r"it lacks vision_encoder.encoder.blocks.0.norm1.bias; .*\(and 3 faults more\)",
        ),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_every_tensor_is_accounted_for(tmp_path, change, fault):
    tensors = retrieval_tensors() | change
    pinned = write_checkpoint(tmp_path / "l16.pth", {name: kept for name, kept in tensors.items() if kept is not None})
    with pytest.raises(WeightsError, match=fault):
        load_network(str(tmp_path / "l16.pth"), sha256=pinned, **UNTOLD)


def test_pth_needs_the_right_digest(tmp_path):
    path = tmp_path / "l16.pth"
    pinned = write_checkpoint(path, {"temp": torch.ones(())})
    with pytest.raises(WeightsError, match=f"needs its SHA-256 pinned; where you trust {path}, pin {pinned}"):
        read_tensors(str(path))
    with pytest.raises(WeightsError, match=f"has SHA-256 {pinned}, but {'0' * 64} is pinned; fetch the file again"):
        read_tensors(str(path), "0" * 64)
    assert list(read_tensors(str(path), pinned.upper())) == ["temp"]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("l16.bin", b"", "is not read: Unmasked Teacher checkpoints are .pth or .safetensors"),
        ("l16.pth", b"not a checkpoint", "can't be read: "),
        ("l16.safetensors", b"not a checkpoint", "can't be read: "),
    ],
)
def test_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, name, content, fault):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(f"{tmp_path / name} {fault}")) as failed:
        load_network(str(tmp_path / name), sha256=digest_of(tmp_path / name))
    assert "\n" not in str(failed.value)


def test_missing_file_and_numbers_for_tensors_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no Unmasked Teacher checkpoint at nowhere\.pth"):
        load_network("nowhere.pth", sha256="0" * 64)
    torch.save({"model": {"temp": 0.07}}, tmp_path / "l16.pth")
    with pytest.raises(WeightsError, match="holds no tensors by name, neither under `model` nor at its top"):
        load_network(str(tmp_path / "l16.pth"), sha256=digest_of(tmp_path / "l16.pth"))


def test_checkpoint_and_tokenizer_of_a_directory_make_a_selector(tmp_path):
    pinned = write_checkpoint(tmp_path / "l16.pth", retrieval_tensors())
    loaded = Umt.load(str(tmp_path / "l16.pth"), write_tokenizer(tmp_path), sha256=pinned, frames=4, **UNTOLD)
    assert loaded.prepare(pictures("film a", 9), ["a dog"]).pixels.shape == (4, 3, TINY.side, TINY.side)


def test_tensors_of_a_file_may_lie_in_any_order(tmp_path):
    turned = collections.OrderedDict(reversed(retrieval_tensors().items()))
    pinned = write_checkpoint(tmp_path / "l16.pth", turned)
    assert load_network(str(tmp_path / "l16.pth"), sha256=pinned, **UNTOLD).sizes == TINY
