"""LPIPS: the published distances, which weights are taken and which refused, and the key frames of a clip."""

import hashlib
import itertools
import pathlib

import lpips as lpips_package
import numpy as np
import pytest
import torch
from lite_media import STEP_S, clip_of, texture, write_reel
from lpips_weights import VGG, lpips_tensors, torchvision_tensors, write_weights
from PIL import Image

from model_handlers import perceptual_weights
from model_handlers.frames import open_reel
from model_handlers.measures.measurer import Measurer
from model_handlers.perceptual import Lpips, load_lpips, lpips_measure, rows_at_1fps
from model_handlers.perceptual_weights import build_network, find_weights
from model_handlers.weights import WeightsError
from transforms.records import MeasuredClip, MeasureRequest, Span
from transforms.reel import Reel

#: As the lpips package's own test has them.
PUBLISHED = {"p0": 0.7219, "p1": 0.1376}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "random.safetensors")


@pytest.fixture(scope="module")
def measure(weights):
    return load_lpips(weights, "cpu")


@pytest.fixture(scope="module")
def real(shared_dir):
    return load_lpips(str(shared_dir / "models" / "lpips_alex_v0.1.safetensors"), "cpu")


def pictures(count: int, height: int = 64, width: int = 80) -> list[np.ndarray]:
    return [texture(width, height, seed) for seed in range(count)]


def by_the_package(measure: Lpips, one: np.ndarray, other: np.ndarray) -> float:
    """The distance as the lpips package computes it from end to end."""
    with torch.inference_mode():
        return measure.network(lpips_package.im2tensor(one), lpips_package.im2tensor(other)).item()


def test_lpips_gives_the_published_distances(real, shared_dir):
    example = shared_dir / "models" / "lpips_example"
    seen = {name: np.asarray(Image.open(example / f"ex_{name}.png").convert("RGB")) for name in ("ref", "p0", "p1")}
    found = real.distances([(seen["ref"], seen[name]) for name in PUBLISHED])
    assert found == pytest.approx(list(PUBLISHED.values()), abs=1e-4)
    assert real.running([seen["p0"], seen["ref"], seen["p1"]]) == pytest.approx(list(PUBLISHED.values()), abs=1e-4)
    assert real.max_running([seen["p0"], seen["ref"], seen["p1"]]) == pytest.approx(0.7219, abs=1e-4)


def test_a_file_of_all_of_lpips_holds_the_heads_that_the_package_ships(real, shared_dir, tmp_path):
    from safetensors.torch import load_file

    whole = load_file(shared_dir / "models" / "lpips_alex_v0.1.safetensors")
    trunk = {f"features.{place}.{kind}": whole[f"net.{number}.{kind}"]
             for number, place in enumerate((0, 3, 6, 8, 10)) for kind in ("weight", "bias")}  # fmt: skip
    again = load_lpips(write_weights(tmp_path / "alexnet.safetensors", trunk), "cpu")
    assert again.running(pictures(2)) == real.running(pictures(2))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_frame_is_compared_with_the_next_as_the_package_would(measure, count):
    frames = pictures(count)
    pairs = list(itertools.pairwise(frames))
    expected = [by_the_package(measure, *pair) for pair in pairs]
    assert min(expected) > 0.01
    assert measure.running(frames) == pytest.approx(expected, abs=1e-6)
    assert measure.distances(pairs) == pytest.approx(expected, abs=1e-6)
    assert measure.max_running(frames) == pytest.approx(max(expected), abs=1e-6)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_frames_have_nothing_to_compare(measure, count):
    assert measure.running(pictures(count)) == []
    assert measure.max_running(pictures(count)) is None


def test_a_picture_that_stays_is_at_no_distance(measure):
    # Convolutions round a little differently in batches of other sizes.
    assert measure.running([texture(80, 64)] * 3) == pytest.approx([0.0, 0.0], abs=1e-9)


def test_pictures_of_other_sizes_are_brought_to_the_size_of_the_first(measure):
    first, second = texture(80, 64, 1), texture(80, 64, 2)
    larger = np.asarray(Image.fromarray(second).resize((160, 128), Image.Resampling.NEAREST))
    # The way there and back blurs a little, far less than one picture differs from the other.
    assert measure.running([first, larger]) == pytest.approx(measure.running([first, second]), rel=0.15)


def test_pictures_too_small_for_the_network_are_refused_with_a_plain_sentence(measure):
    with pytest.raises(ValueError, match="frames of 80 x 31 pixels are too small for LPIPS, which wants 32"):
        measure.running(pictures(2, height=31))
    assert len(measure.running(pictures(2, height=32, width=32))) == 1


def test_vgg16_of_torchvision_gets_its_own_heads(tmp_path):
    measure = load_lpips(write_weights(tmp_path / "vgg16.safetensors", torchvision_tensors(VGG)), "cpu")
    assert (measure.network.pnet_type, len(measure.network.lins)) == ("vgg", 5)
    one, other = pictures(2)
    assert measure.running([one, other]) == pytest.approx([by_the_package(measure, one, other)], abs=1e-6)


def without(name: str) -> dict:
    return {key: value for key, value in lpips_tensors().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (without("net.3.bias"), "does not fit LPIPS: it lacks net.3.bias"),
        (without("lin.4.weight"), "does not fit LPIPS: it lacks lin.4.weight"),
        (without("net.0.weight"), "holds neither LPIPS weights nor torchvision's AlexNet or VGG16"),
        ({**lpips_tensors(), "lin.5.weight": torch.zeros(512)}, "does not fit LPIPS: nobody knows its lin.5.weight"),
        (
            {**lpips_tensors(), "net.1.bias": torch.zeros(64)},
            "does not fit LPIPS: its net.1.bias has the shape (64,), not (192,)",
        ),
        (
            {**torchvision_tensors(), "features.12.weight": torch.zeros(3)},
            "does not fit LPIPS: nobody knows its features.12.weight",
        ),
        (
            {"features.0.weight": torch.zeros(64, 3, 11, 11)},
            "it lacks features.0.bias; it lacks features.10.bias; it lacks features.10.weight (and 6 faults more)",
        ),
        ({"fc.weight": torch.zeros(3)}, "holds neither LPIPS weights nor torchvision's AlexNet or VGG16"),
    ],
)
def test_weights_that_lack_a_tensor_or_have_one_too_many_are_refused(tmp_path, tensors, said):
    path = write_weights(tmp_path / "odd.safetensors", tensors)
    with pytest.raises(WeightsError) as raised:
        load_lpips(path, "cpu")
    assert str(raised.value).startswith(path)
    assert said in str(raised.value)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(pathlib.Path(write_weights(tmp_path / "whole.safetensors")).read_bytes()[:5000])
    with pytest.raises(WeightsError, match="can't be read: ") as raised:
        build_network(str(path))
    assert "\n" not in str(raised.value)


class Bomb:
    """What a hostile pickle holds: something that is called when it is loaded."""

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("exploded"),)


def pin(monkeypatch, path: pathlib.Path) -> None:
    monkeypatch.setitem(perceptual_weights.HUB_FILES, path.name, hashlib.sha256(path.read_bytes()).hexdigest()[:8])


def test_a_pth_file_is_opened_only_if_its_digest_is_pinned_and_never_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    torch.save({"features.0.weight": Bomb()}, path)
    with pytest.raises(WeightsError, match=r"has SHA-256 [0-9a-f]{12}\.\.\., not 7be5be79\.\.\.; delete it and fetch"):
        load_lpips(str(path))
    pin(monkeypatch, path)
    with pytest.raises(WeightsError, match="can't be read: Weights only load failed"):
        load_lpips(str(path))
    assert not (tmp_path / "exploded").exists()


def test_the_hub_is_its_cache_and_never_the_network(tmp_path, monkeypatch, measure):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"to fetch it once, run: python -c 'import torchvision; .*alexnet"):
        find_weights("hub")
    path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    torch.save(torchvision_tensors(), path)
    pin(monkeypatch, path)
    assert find_weights("hub") == str(path)
    assert load_lpips("hub", "cpu").network.pnet_type == "alex"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("s3://bucket/alex.safetensors", "from a file or from gs://; copy s3://bucket/alex.safetensors here"),
        ("/no/where.safetensors", "there are no LPIPS weights at /no/where.safetensors; name a file, or `hub`"),
        (__file__, "is not read: LPIPS weights are .safetensors, or alexnet-owt-7be5be79.pth or vgg16-397923af.pth"),
    ],
)
def test_what_is_no_weights_file_is_told_in_one_line(named, said):
    with pytest.raises(WeightsError) as raised:
        load_lpips(named)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def shaded(count: int) -> list[np.ndarray]:
    """Frames, half a second apart, each of a grey of its own."""
    return [np.full((48, 64, 3), 5 * number, np.uint8) for number in range(count)]


@pytest.mark.parametrize(
    ("span", "times"),
    [
        (Span(0.0, 4.0), [0.0, 1.0, 2.0, 3.0]),
        (Span(0.0, 4.1), [0.0, 1.0, 2.0, 3.0, 4.0]),
        (Span(1.0, 3.0 + 1e-9), [1.0, 2.0]),
        (Span(0.3, 2.5), [0.5, 1.5, 2.0]),
        (Span(0.1, 1.05), [0.5]),
        (Span(0.6, 0.9), [0.5]),
        (Span(8.0, 13.0), [8.0, 9.0, 9.5]),
    ],
)
def test_key_frames_are_the_nearest_to_each_second_inside_the_span_and_none_twice(tmp_path, span, times):
    reel = Reel.open(write_reel(tmp_path / "reel.arrow", shaded(20)))
    assert [reel.times[row] for row in rows_at_1fps(reel, span)] == times
    greys = [round(float(frame.mean())) for frame in reel.frames(rows_at_1fps(reel, span))]
    assert greys == [round(5 * time_s / STEP_S) for time_s in times]
    assert rows_at_1fps(open_reel(str(tmp_path / "reel.arrow")), span) == rows_at_1fps(reel, span)


def test_the_handler_answers_each_clip_and_a_missing_reel_costs_its_own_clip(tmp_path, weights, measure):
    frames = pictures(9)
    reel = write_reel(tmp_path / "reel.arrow", frames)
    handler = Measurer("lpips", (lpips_measure(weights),))
    clips = [clip_of(reel, 9, "long"), clip_of(str(tmp_path / "gone.arrow"), 9, "gone"), clip_of(reel, 2, "short")]
    requests = [MeasureRequest(MeasuredClip(clip), ("lpips",)) for clip in clips]
    long, gone, short = handler.run_inference(requests, handler.load_model())
    assert [one.request.measured.clip.clip_id for one in (long, gone, short)] == ["long", "gone", "short"]
    expected = measure.max_running(Reel.open(reel).frames([0, 2, 4, 6, 8]))
    assert long.answer["lpips"] == {"max_running_lpips": pytest.approx(expected, abs=1e-6)}
    assert (short.answer, short.failure) == ({"lpips": {"max_running_lpips": None}}, None)
    assert (gone.answer, gone.failure.error_class) == (None, "ReelError")


def test_weights_that_changed_since_the_job_was_configured_stop_it(tmp_path):
    path = write_weights(tmp_path / "weights.safetensors")
    measure = lpips_measure(path)
    write_weights(tmp_path / "weights.safetensors", lpips_tensors(seed=1))
    with pytest.raises(WeightsError, match="is not the file any more that the job was configured with"):
        measure.load()
