"""How measures are spread: both sides of a filter, one pass over each table, and nothing of what was not measured."""

import pyarrow as pa

from beam_pipeline.score_statistics import describe, gather
from transforms.measure_columns import MEASURED, measured_row

KINDS = [(column.name, column.kind) for column in MEASURED]
CLIPS = pa.schema([("clip_id", pa.string()), *KINDS])
REJECTED = pa.schema([("stage", pa.string()), ("reason", pa.string()), *KINDS])


class Tables:
    """Two clips, one that a filter dropped, and a trimmed end; notes what is asked for."""

    def __init__(self, *blurs: float | None, category: str | None = None):
        kept = [
            {"clip_id": f"c{n}", **measured_row({"blur": blur, "category": category})} for n, blur in enumerate(blurs)
        ]
        dropped = {"stage": "filter", "reason": "blur is above 0.6", **measured_row({"blur": 0.75})}
        trimmed = {"stage": "trim", "reason": "trimmed", **measured_row({})}
        self._rows = {
            "clips": pa.Table.from_pylist(kept, schema=CLIPS),
            "rejected": pa.Table.from_pylist([dropped, trimmed], schema=REJECTED),
        }
        self.asked: list[str] = []

    def scan(self, name: str, columns: list[str]) -> list[pa.RecordBatch]:
        self.asked.append(name)
        return self._rows[name].select(columns).to_batches(max_chunksize=1)


def test_what_a_filter_dropped_counts_and_each_table_is_read_once():
    tables = Tables(0.25, float("nan"), None, category="food")
    found = gather(tables.scan)
    assert [(score.column.name, score.values.tolist(), score.labels) for score in found.scores] == [
        ("blur", [0.25, 0.75], {}),
        ("category", [], {"food": 3}),
    ]
    assert (found.clips, found.dropped, tables.asked) == (4, {"blur is above 0.6": 1}, ["clips", "rejected"])


def test_the_summary_tells_bounds_labels_and_what_was_dropped():
    head, shares, blur, category, dropped = describe(gather(Tables(0.25, 0.5, category="food").scan))
    assert head == "scores    so many of the clips are below; a min there drops them, a max there the others"
    assert shares.split() == ["1%", "5%", "25%", "50%", "75%", "95%", "99%"]
    assert blur.split() == ["blur", "0.255", "0.275", "0.375", "0.5", "0.625", "0.725", "0.745"]
    assert category.split() == ["category", "food", "100%"]
    assert dropped == "dropped   1 clips (33.3%): blur is above 0.6"
