"""Train, val and test: disjoint by source and by cluster of duplicates, stable, and as large as was asked for."""

import json
import os
import pathlib
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_rows import video_rows

from beam_pipeline import __version__
from beam_pipeline.cli import main
from beam_pipeline.split import (
    PARTS,
    SplitOptions,
    clusters,
    duplicate_sources,
    part_of,
    quotas,
    split_dataset,
)
from transforms.committing import Committer
from transforms.lease import WriterLease
from transforms.schemas import VideoRows

NAMES = [f"v{number:03d}" for number in range(120)]


def commit(folder, names, run_id="r1", n_clips=4):
    """Videos whose clips have the scores 0.4, 0.5, 0.6, 0.7 and, by turns, one of three teachers."""
    videos = []
    for number, name in enumerate(names):
        rows = video_rows(name, run_id, n_clips=n_clips)
        clips = tuple(
            {**clip, "matching_score": 0.4 + at / 10, "teacher": "abb"[number % 3] if at else "c"}
            for at, clip in enumerate(rows.clips)
        )
        videos.append(VideoRows(name, rows.video, clips, rows.rejected, rows.failures))
    with WriterLease(folder, run_id):
        Committer(folder).commit(videos)
    return str(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return commit(tmp_path_factory.mktemp("split") / "set", NAMES)


def split(dataset, output, **options):
    split_dataset(str(dataset), str(output), SplitOptions(**options))
    return {part: pq.read_table(pathlib.Path(output) / f"{part}.parquet").to_pylist() for part in PARTS}


def sources(parts):
    return {part: {row["video_id"] for row in rows} for part, rows in parts.items()}


def test_every_clip_falls_into_one_part_with_its_source(dataset, tmp_path):
    parts = split(dataset, tmp_path / "out", val=0.2, test=0.3)
    names = sources(parts)
    assert {part: len(found) for part, found in names.items()} == {"train": 64, "val": 22, "test": 34}
    assert names["train"] | names["val"] | names["test"] == set(NAMES)
    assert {part: len(rows) for part, rows in parts.items()} == {part: 4 * len(found) for part, found in names.items()}
    row = next(row for row in parts["val"] if row["start_s"] == 1.0)
    name = row["video_id"]
    assert row == {
        "clip_id": f"{name}_1000_9000",
        "video_id": name,
        "uri": f"/videos/{name}.mp4",
        "start_s": 1.0,
        "end_s": 9.0,
        "caption": "a dog runs",
    }


def test_a_growing_dataset_never_moves_a_source(tmp_path):
    folder = commit(tmp_path / "set", NAMES[:60])
    before = sources(split(folder, tmp_path / "before", val=0.2, test=0.3))
    commit(folder, NAMES[50:], "r2")
    after = sources(split(folder, tmp_path / "after", val=0.2, test=0.3))
    for part in PARTS:
        assert before[part] == after[part] & set(NAMES[:60])


def test_a_split_is_the_same_to_the_byte_and_another_seeds_is_another(dataset, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split(dataset, tmp_path / name, seed=seed)
    files = {name: {one.name: one.read_bytes() for one in (tmp_path / name).iterdir()} for name in "abc"}
    assert files["a"] == files["b"]
    assert files["a"]["train.parquet"] != files["c"]["train.parquet"]


def test_the_papers_subset_takes_three_strong_clips_a_source_at_most(dataset, tmp_path):
    parts = split(dataset, tmp_path / "out", min_score=0.43, max_clips_per_source=2)
    rows = [row for part in PARTS for row in parts[part]]
    taken = {name: [row["start_s"] for row in rows if row["video_id"] == name] for name in NAMES}
    assert {len(starts) for starts in taken.values()} == {2}
    assert all(starts == sorted(starts) for starts in taken.values())
    assert {start for starts in taken.values() for start in starts} == {11.0, 21.0, 31.0}


def test_a_score_equal_to_the_least_is_not_greater(tmp_path):
    folder = commit(tmp_path / "set", ["a"], n_clips=2)
    assert sum(map(len, split(folder, tmp_path / "out", min_score=0.4).values())) == 2
    (score,) = {float(pa.scalar(0.4, pa.float32()).as_py())}
    assert sum(map(len, split(folder, tmp_path / "other", min_score=score).values())) == 1


def test_a_limit_is_reached_exactly_and_a_smaller_one_is_part_of_a_larger(dataset, tmp_path):
    small = split(dataset, tmp_path / "small", limit=50)
    large = split(dataset, tmp_path / "large", limit=101)
    assert (sum(map(len, small.values())), sum(map(len, large.values()))) == (50, 101)
    for part in PARTS:
        assert {row["clip_id"] for row in small[part]} <= {row["clip_id"] for row in large[part]}


@pytest.mark.parametrize(("limit", "expected"), [(None, {"a": 120}), (90, {"a": 30, "b": 30, "c": 30})])
def test_balance_gives_every_value_an_even_share(dataset, tmp_path, limit, expected):
    parts = split(dataset, tmp_path / "out", balance="teacher", limit=limit)
    ids = {row["clip_id"] for rows in parts.values() for row in rows}
    teachers = {}
    for number, name in enumerate(NAMES):
        for at in range(4):
            if f"{name}_{at * 10000 + 1000}_{at * 10000 + 9000}" in ids:
                teacher = "abb"[number % 3] if at else "c"
                teachers[teacher] = teachers.get(teacher, 0) + 1
    assert teachers == ({**expected, "b": 120, "c": 120} if limit is None else expected)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], {}),
        ([("a", "b")], {"a": "ab", "b": "ab"}),
        ([("a", "b"), ("c", "d"), ("b", "c")], dict.fromkeys("abcd", "abcd")),
        ([("a", "b"), ("b", "a"), ("x", "y")], {"a": "ab", "b": "ab", "x": "xy", "y": "xy"}),
        ([("a", "a")], {"a": "a"}),
        ([("e", "d"), ("d", "c"), ("c", "b"), ("b", "a"), ("a", "e")], dict.fromkeys("abcde", "abcde")),
    ],
)
def test_clusters_are_what_pairs_join(pairs, expected):
    assert clusters(pairs) == {name: frozenset(members) for name, members in expected.items()}


def test_a_cluster_falls_where_its_lowest_source_does_so_it_never_enters_train():
    sides = {name: part_of(0, [name], 0.2, 0.3) for name in NAMES}
    rank = {"test": 0, "val": 1, "train": 2}
    for one, other in zip(NAMES, reversed(NAMES), strict=True):
        lowest = min(sides[one], sides[other], key=rank.__getitem__)
        assert part_of(0, [one, other], 0.2, 0.3) == lowest


def test_sources_with_duplicates_of_each_others_clips_are_pairs():
    rows = [
        ("a1", "a", None),
        ("a2", "a", "a1"),
        ("b1", "b", "a1"),
        ("c1", "c", "b1"),
        ("d1", "d", "gone"),
        ("e1", "e", None),
    ]
    schema = pa.schema([(name, pa.string()) for name in ("clip_id", "video_id", "duplicate_of")])
    batch = pa.RecordBatch.from_arrays(
        [pa.array(column, pa.string()) for column in zip(*rows, strict=True)], schema=schema
    )
    assert duplicate_sources(lambda: [batch.slice(0, 3), batch.slice(3)]) == [("b", "a"), ("c", "b")]


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ({"a": 5, "b": 2}, None, {"a": 2, "b": 2}),
        ({"a": 5, "b": 2}, 6, {"a": 4, "b": 2}),
        ({"a": 5, "b": 2}, 100, {"a": 5, "b": 2}),
        ({"a": 5, "b": 5, "c": 5}, 7, {"a": 2, "b": 2, "c": 3}),
        ({"a": 5}, 0, {"a": 0}),
        ({}, None, {}),
        ({}, 5, {}),
    ],
)
def test_quotas_are_even_and_what_a_rare_value_leaves_goes_to_others(counts, limit, expected):
    assert quotas(counts, limit) == expected


def test_the_record_tells_settings_counts_and_versions(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["split", dataset, "--output", str(out), "--seed", "3", "--min-score", "0.43", "--limit", "40"]) == 0
    told = json.loads((out / "split.json").read_text())
    assert told["settings"] == {
        "val": 0.05, "test": 0.05, "seed": 3, "min_score": 0.43, "max_clips_per_source": None, "limit": 40,
        "balance": None,
    }  # fmt: skip
    assert (told["reelscribe"], told["dataset"]) == (__version__, "set")
    assert told["versions"] == {"clips": 1, "failures": 1, "rejected": 1, "videos": 1}
    assert sum(part["clips"] for part in told["counts"].values()) == 40
    assert {file["name"]: file["rows"] for file in told["files"]} == {
        f"{part}.parquet": told["counts"][part]["clips"] for part in PARTS
    }
    train = told["counts"]["train"]
    assert capsys.readouterr().out.splitlines()[0] == (
        f"train  {train['clips']:>10} clips of {train['sources']} sources, {train['hours']:.2f} h"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--val", "0.6", "--test", "0.5"], "together they are at most 1"),
        (["--val", "2"], "'2' is not a number from 0 to 1"),
        (
            ["--balance", "colour"],
            "clips have no text column 'colour' to balance by; there are title, caption, teacher",
        ),
        (["--min-score", "nan"], "'nan' is not a number"),
        (["--max-clips", "3"], "unknown argument '--max-clips'; did you mean '--max-clips-per-source'?"),
        (["--seed", "-1"], "argument --seed"),
        (["--output", "SET/clips"], "is the dataset's own"),
        (["--output", "s3://x"], "s3://x is neither a directory nor gs://"),
    ],
)
def test_bad_usage_is_told_in_one_line(dataset, tmp_path, arguments, message, capsys):
    words = [word.replace("SET", dataset) for word in arguments]
    assert main(["split", dataset, "--output", str(tmp_path / "out"), *words]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert message in told.err
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_there_is_replaced_only_when_asked_for(dataset, tmp_path, capsys):
    arguments = ["split", dataset, "--output", str(tmp_path / "out")]
    assert [main(arguments), main(arguments), main([*arguments, "--overwrite", "--limit", "8"])] == [0, 2, 0]
    assert "is there already; add --overwrite to replace it" in capsys.readouterr().err
    assert sum(file["rows"] for file in json.loads((tmp_path / "out" / "split.json").read_text())["files"]) == 8


def test_a_full_disk_is_told_and_leaves_nothing_behind(dataset, tmp_path):
    script = (
        "import resource, sys; from beam_pipeline.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "split", dataset, "--output", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=pathlib.Path(__file__).parents[1])
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "split failed: OSError: [Errno 27] File too large" in ended.stderr
    assert os.listdir(tmp_path) == []


def test_a_split_goes_into_a_bucket_from_a_bucket(gcs, tmp_path):
    folder = commit("gs://bucket/set", NAMES[:6])
    told = split_dataset(folder, "gs://bucket/parts", SplitOptions())
    from transforms.files import list_files

    found = [path.rpartition("/")[2] for path in list_files("gs://bucket/parts")]
    assert found == ["split.json", "test.parquet", "train.parquet", "val.parquet"]
    assert sum(part["clips"] for part in told["counts"].values()) == 24
