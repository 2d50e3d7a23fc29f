"""Find the videos of a bounded job as its first step, on a worker: a graph need not hold 100,000 names.

found = pipeline | ListSources(("gs://uploads/",), "gs://sets/talks")       # -> found.sources, found.skipped
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import apache_beam as beam
from apache_beam import pvalue

from transforms.reading import Source, find_sources
from transforms.tables import check_output
from transforms.tombstones import without_taken_down


@dataclasses.dataclass
class ListSources(beam.PTransform):
    """List the sources of a dataset's inputs, each once, and leave out what was taken down.

    Nothing in; `sources` (Source) and `skipped` (one number: files that are no media, and what was taken down) out;
    bounded. One worker lists, as what is named twice is a source once. An input that names nothing raises, and so does
    one that stands among the dataset's own files.

    Args:
      inputs: as `find_sources` takes them. output: the dataset. limit: stop after so many.
      allowed: buckets that manifests may name objects of, beside those of the inputs.
    """

    inputs: tuple[str, ...]
    output: str
    limit: int | None = None
    allowed: tuple[str, ...] = ()

    def expand(self, pipeline: pvalue.PBegin) -> pvalue.DoOutputsTuple:
        named = pipeline | "Inputs" >> beam.Create([self.inputs])
        listed = beam.FlatMap(_listed, self.output, self.limit, self.allowed)
        return named | "List" >> listed.with_outputs("skipped", main="sources")


def _listed(
    inputs: tuple[str, ...], output: str, limit: int | None, allowed: tuple[str, ...]
) -> Iterator[Source | pvalue.TaggedOutput]:
    named = find_sources(inputs, limit, allowed)
    check_output(output, [source.uri for source in named.sources])
    found = without_taken_down(named, output)
    yield pvalue.TaggedOutput("skipped", found.skipped)
    yield from found.sources
