"""How right is the lite backend of `category`, and what do the measures that need a model cost?

    python benchmarks/measures_models.py --videos VIDEOS --pictures DEV.parquet TRAIN.parquet
    python benchmarks/measures_models.py --videos VIDEOS --clip CHECKPOINT --head HEAD.pth --nsfw CHECKPOINT

VIDEOS holds the Panda-70M clips that are named below, a parquet file Flickr8k's columns `image_id` and `jpeg`.
The first table compares ways to get from ImageNet's labels to categories, the second tells what a score is worth, and
milliseconds are those of one clip, without splitting and loading. What no weights are named for is left out: a
checkpoint of random weights would tell nothing of a real one's cost.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from model_handlers.conse import load_conse
from model_handlers.labels import load_labels
from model_handlers.measures import aesthetics, category, nsfw, quality
from model_handlers.measures.category import LITE_SCALE, mean_direction, packaged_labels, softmax
from model_handlers.measures.view import ClipView, Measure
from model_handlers.vision import load_vision
from transforms.detection import SplittingConfig
from transforms.records import Clip, Span, Video
from transforms.splitting import split_of, split_video

#: As curate trims a clip, at either end.
TRIM = 0.1

#: Flickr8k pictures that are clear to the author from their five captions. What can be chosen was chosen on them.
FLICKR8K = {
    "animals": """
        1119418776 1319634306 1522787272 1598085252 1932161768 2120411340 2534502836 2696394827 2704379125
        2860667542 3069937639 3175712926 3409326324 3433567526 3551281733 356143774 3594029059 3716272233 393958545
        494792770
    """,
    "sports": """
        106514190 123997871 136552115 143680442 143688283 2065309381 2272491304 2471447879 2893515010 2987121689
        3064383768 3163477256 3349258288 3356748019 3452982513 3568219100 3572144280 3700322513 461505235 997722733
    """,
    "vehicles": """
        508432819 190638179 2471974379 2496236371 2522540026 2533414541 2914206497 2968216482 3486340101 3530502404
        3578068665 3604314527 2831215155
    """,
    "city": """
        244910177 3666056567 380515798 435827376 437404867 804087017 842961005 3490044563 561417861
    """,
    "family": """
        1956944011 2171154778 2293149170 2374247382 2609900643 2708582445 3767841911 537532165 624742559 1263126002
        1468389504 3459570613 3724759125
    """,
    "transport": """
        2057160636 215214751 2292406847 2480664591 2480668859 2481490320 2631625732 2797185895 2797188545 2906802485
        3692593096 90011335
    """,
    "performance": """2662537919 2999735171 3155400369 3293018193 3315353266 3590739067 480607352""",
    "nature": """2452686995 3715559023""",
    "food": """3118425885""",
}

#: Panda-70M clips, in the same way; the check. Their captions were known when the sentences of the packaged categories
#: were written, but no clip was looked at.
PANDA70M = {
    "food": """
        LZkIIu4FOKA.28 3blNgn1nul0.0 AvVDsFBc6bA.0 YI5pCJ0__N8.24 0amQ2_bZJ24.18 aQApNfoJ4ls.12 lxoDR1ud464.8
        6fHASeSrH8w.43 1r2eNjJ__mE.20
    """,
    "games": """h4RJ0Kv8n_Y.75 UaQKCrszICw.16""",
    "nature": """
        CgcadSRtAag.140 oKQnD2aawvI.13 UBdicUlzAng.35 LDBkx1me1Y8.60 mPRA4vBnxx0.12 2jKXlH_ceCo.11
    """,
    "animals": """
        aIFfzBnvUVE.80 aCx99cgrkVY.22 7OsDt19urYQ.0 AIyw1FO1aqs.57 GTPU6RnGj68.61 CxeY8J99jEw.19 aIPu1xGNbhc.49
        A3y8N3nnVJ8.68
    """,
    "vehicles": """
        ROjeJX4omyE.16 J_6TUYXi0PQ.44 lvPG7CQTRGA.13 1NMpoAqzJfY.25 gyM6JW642Qo.12 q4CfXZtnPLE.34 CkPpCpixOMI.22
        IUVtJuXsjtc.32
    """,
    "making": """0WjR6cSMi2A.3 Vg7WOOQrErw.28 Idu_-Ar4C5E.17""",
    "sports": """rIy9npvL0uw.16 pKIEP-MOCu0.47 MJao9o7ROs0.1 7axksThlAok.79 DiBm_b-eV8Q.0""",
    "beauty": """YemkZ7DLOBU.15""",
    "performance": """JlHyAD6Ne_8.53 eibWo9t6pos.25""",
    "space": """OjXeF568qUA.18 aHvi80-PnZ8.15""",
    "city": """TPVvXvf4xRc.9""",
    "talking": """mxB5DCinF0I.7""",
    "technology": """OiEN3JxUwLg.3 ITKgZZcTpzE.5""",
}

#: ImageNet's groups and kinds of labels.yaml by hand, for comparison: a group goes before its kind.
BY_HAND = {
    **{"a boat or ship": "transport", "an aircraft": "transport", "a train or tram": "transport"},
    **{"a musical instrument": "performance", "a structure outdoors": "city", "a cosmetic product": "beauty"},
    **{"an animal": "animals", "a vehicle": "vehicles", "food": "food", "kitchenware": "food", "a room": "rooms"},
    **{"an electronic device": "technology", "printed matter": "technology", "a building": "city"},
    **{"a place outdoors": "nature", "a plant or mushroom": "nature", "sports gear": "sports"},
    **{"something that people wear": "beauty", "a person": "performance", "an object": "making"},
}

Design = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """A clip or picture: its category, and the label probabilities (n, 1000) of its frames."""

    truth: str
    seen: np.ndarray


def pictures(paths: Iterable[pathlib.Path]) -> Iterator[Case]:
    """The Flickr8k pictures of the truth table."""
    truth = {name: label for label, names in FLICKR8K.items() for name in names.split()}
    for path in paths:
        for row in pq.read_table(path, columns=["image_id", "jpeg"]).to_pylist():
            if label := truth.get(row["image_id"].partition("_")[0]):
                frame = np.asarray(Image.open(io.BytesIO(row["jpeg"])).convert("RGB"))
                yield Case(label, load_vision().look_at([frame]).probabilities)


def clips(videos: pathlib.Path, scratch: pathlib.Path) -> Iterator[tuple[str, ClipView]]:
    """The Panda-70M clips of the truth table, each a video of its own, with their categories."""
    for label, names in PANDA70M.items():
        for name in names.split():
            path, reel = str(videos / f"{name}.mp4"), str(scratch / f"{name}.arrow")
            split = split_of(
                video := Video(name, path, "benchmark", 0),
                reel,
                split_video(path, reel, SplittingConfig(), etag=video.etag),
            )
            end_s = split.shots[-1].end_s
            span = Span(TRIM * end_s, (1 - TRIM) * end_s)
            yield label, ClipView(Clip(name, name, path, span, (span,), split.media, split.reel, "benchmark"))


def designs() -> dict[str, Design]:
    """From the label probabilities (n, 1000) of a clip's frames to a logit of each packaged category."""
    space, labels, names = load_conse(), load_labels(), list(packaged_labels())
    told = [space.texts(prompts) for prompts in packaged_labels().values()]
    means = np.stack([mean_direction(vectors) for vectors in told])
    # Each ImageNet label as a picture that shows nothing else.
    each = np.stack([softmax(LITE_SCALE * (means @ space.picture(one))) for one in np.eye(1000)])
    by_hand = np.zeros((1000, len(names)))
    for number, (group, kind) in enumerate(zip(labels.groups, labels.kinds, strict=True)):
        by_hand[number, names.index(BY_HAND.get(group) or BY_HAND[kind])] = 1
    return {
        "ConSE": lambda seen: means @ space.picture(seen),
        "ConSE, recalled": lambda seen: means @ space.recall(space.picture(seen)),
        "ConSE, recalled, best sentence": lambda seen: np.array(
            [(vectors @ space.recall(space.picture(seen))).max() for vectors in told]
        ),
        "each label by its sentence vector": lambda seen: seen.mean(axis=0) @ each,
        "labels grouped by hand": lambda seen: seen.mean(axis=0) @ by_hand,
    }


def accuracy(cases: list[Case], design: Design) -> tuple[float, float, dict[str, float]]:
    """The share that is right, the mean of the categories' shares, and these."""
    names, right = list(packaged_labels()), collections.defaultdict(list)
    for case in cases:
        right[case.truth].append(names[int(design(case.seen).argmax())] == case.truth)
    shares = {label: float(np.mean(found)) for label, found in right.items()}
    return (
        float(np.mean([one for found in right.values() for one in found])),
        float(np.mean(list(shares.values()))),
        shares,
    )


def print_accuracy(sets: Mapping[str, list[Case]]) -> None:
    """The tables of accuracy and of reliability."""
    made, names = designs(), list(packaged_labels())
    print(
        "| right, mean over categories | " + " | ".join(f"{name} ({len(cases)})" for name, cases in sets.items()) + " |"
    )
    print("|---|" + "---:|" * len(sets))
    for name, design in made.items():
        cells = [accuracy(cases, design) for cases in sets.values()]
        print(f"| {name} | " + " | ".join(f"{right:.2f}, {mean:.2f}" for right, mean, _ in cells) + " |")
    for name, cases in sets.items():
        counts = collections.Counter(case.truth for case in cases)
        commonest = counts.most_common(1)[0][1] / len(cases)
        print(f"\n{name}: always the commonest category {commonest:.2f}, chance {1 / len(names):.2f}. By category:")
        shares = accuracy(cases, made["ConSE, recalled"])[2]
        print(", ".join(f"{label} {shares[label]:.2f} of {count}" for label, count in counts.most_common()))
        told = [softmax(LITE_SCALE * made["ConSE, recalled"](case.seen)) for case in cases]
        right = np.array([names[int(one.argmax())] == case.truth for one, case in zip(told, cases, strict=True)])
        best = np.array([one.max() for one in told])
        for low, high in ((0.0, 0.5), (0.5, 0.8), (0.8, 1.01)):
            among = (best >= low) & (best < high)
            if among.any():
                print(f"score {low:.1f} to {min(high, 1.0):.1f}: {right[among].mean():.2f} right of {among.sum()}")


def print_cost(measures: Iterable[Measure], views: Iterable[ClipView]) -> None:
    """Milliseconds a clip of each measure, one after the other on the same views, as a job runs them."""
    views = list(views)
    for measure in measures:
        look = measure.load()
        look(views[0])
        began, computed = time.perf_counter(), time.process_time()
        for view in views[1:]:
            look(view)
        passed, computed = time.perf_counter() - began, time.process_time() - computed
        each = 1000 / (len(views) - 1)
        print(f"{measure.name}: {passed * each:.0f} ms a clip, {computed * each:.0f} of them computing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=pathlib.Path, required=True, help="folder of Panda-70M clips")
    parser.add_argument("--pictures", type=pathlib.Path, nargs="*", default=[], help="Flickr8k as parquet")
    parser.add_argument("--clip", help="a CLIP checkpoint, for category, quality and aesthetic")
    parser.add_argument("--head", help="an aesthetic head, for --clip")
    parser.add_argument("--nsfw", help="an image classifier's checkpoint")
    options = parser.parse_args()
    measures = [category.measure(category.Settings())]
    if options.clip:
        measures.append(category.measure(category.Settings(weights=options.clip)))
        measures.append(quality.measure(quality.Settings(weights=options.clip)))
    if options.clip and options.head:
        measures.append(aesthetics.measure(aesthetics.Settings(options.head, weights=options.clip)))
    if options.nsfw:
        measures.append(nsfw.measure(nsfw.Settings(options.nsfw)))
    with tempfile.TemporaryDirectory() as scratch:
        found = list(clips(options.videos, pathlib.Path(scratch)))
        print_cost(measures, [view for _, view in found])
        panda = [
            Case(label, load_vision().look(view.reel, view.uniform(category.Settings().frames)).probabilities)
            for label, view in found
        ]
    flickr = list(pictures(options.pictures))
    print_accuracy({**({"Flickr8k": flickr} if flickr else {}), "Panda-70M": panda})


if __name__ == "__main__":
    main()
