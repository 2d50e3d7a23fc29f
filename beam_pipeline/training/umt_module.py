"""Unmasked Teacher's tensors as parameters, and its network as it is while they change.

module = as_module(tensors)                          # a `torch.nn.Module`; its state has the published names
network = TrainedNetwork(sizes, module)
tokens, pooled = network.encode_video(frames)        # with gradients, and dropout in `module.train()`
"""

from __future__ import annotations

from typing import Any

from model_handlers.umt_network import Tensors, UmtNetwork, UmtSizes

#: Of BERT's sums and attention, as its authors train it and as Unmasked Teacher's do.
DROPOUT = 0.1
#: Of the ViT's blocks: of the last one, from none for the first. What most of the authors' configurations for
#: fine-tuning L/16 for retrieval say (0.2; MSR-VTT and MSVD 0.3); those for B/16 say 0.1 or 0.2.
DROP_PATH = 0.2


def as_module(tensors: Tensors) -> Any:
    """A module whose parameters are these tensors, under the same names; it computes nothing itself."""
    import torch

    root = torch.nn.Module()
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        place = root
        for parent in parents:
            if parent not in dict(place.named_children()):
                place.add_module(parent, torch.nn.Module())
            place = place.get_submodule(parent)
        place.register_parameter(last, torch.nn.Parameter(tensor))
    return root


class TrainedNetwork(UmtNetwork):
    """The network of a module, wherever the module is moved, with what is left out in training.

    Args:
      module: from `as_module`. dropout, drop_path: shares; see `DROPOUT` and `DROP_PATH`.
    """

    def __init__(self, sizes: UmtSizes, module: Any, dropout: float = DROPOUT, drop_path: float = DROP_PATH):
        super().__init__(sizes, dict(module.named_parameters()))
        self.module, self.dropout, self.drop_path = module, dropout, drop_path
        self.checkpointing = False

    def refresh(self) -> None:
        """Look up the parameters again, which a move to another device may have replaced."""
        self.tensors = dict(self.module.named_parameters())

    def _video_layer(self, number: int, x: Any) -> Any:
        return self._twice(super()._video_layer, number, x)

    def _text_layer(self, number: int, x: Any, mask: Any, tokens: Any = None, present: Any = None) -> Any:
        return self._twice(super()._text_layer, number, x, mask, tokens, present)

    def _twice(self, layer: Any, *inputs: Any) -> Any:
        """A layer's output, computed again on the way back where memory is dearer than time."""
        from torch.utils.checkpoint import checkpoint

        if not (self.checkpointing and self.module.training):
            return layer(*inputs)
        # Its random numbers are kept, so that the same ones are dropped both times.
        return checkpoint(layer, *inputs, use_reentrant=False)

    def _drop(self, x: Any) -> Any:
        from torch.nn.functional import dropout

        return dropout(x, self.dropout, self.module.training)

    def _attention_dropout(self) -> float:
        return self.dropout if self.module.training else 0.0

    def _skip(self, number: int, change: Any) -> Any:
        """Stochastic depth (Huang et al., 2016): a clip passes by a block, more often by a later one."""
        from torch.nn.functional import dropout

        rate = self.drop_path * number / max(1, self.sizes.video_layers - 1)
        return change * dropout(change.new_ones(len(change), 1, 1), rate, self.module.training)
