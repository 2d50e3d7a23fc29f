"""RunInference as every stage with a model uses it.

clips | "Caption" >> infer(teacher.handler, {"accelerator": "type:nvidia-l4;count:1;install-nvidia-driver"})
"""

from __future__ import annotations

from collections.abc import Mapping

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference


def infer(handler: ModelHandler, hints: Mapping[str, str] | None = None) -> beam.PTransform:
    """RunInference on workers that the hints describe.

    A model that the processes of a machine share is known by the `identifier` of its handler: under Beam's own, which
    is the same for all stages, one would get the model of another.

    Args:
      handler: answers requests. hints: Beam's resource hints; without any, the workers of the pipeline.
    """
    identifier = getattr(handler, "identifier", None)
    inference = RunInference(handler, model_identifier=identifier) if identifier else RunInference(handler)
    return inference.with_resource_hints(**hints) if hints else inference
