"""The device that a model computes on: which one, in which numbers, and how much memory it has left.

device = choose_device()                  # a GPU where there is one, bfloat16 where it computes in that
network = AutoModel.from_pretrained(..., dtype=device.dtype).to(device.name)
"""

from __future__ import annotations

import dataclasses
import gc
import glob
import os
from typing import Any

#: GPUs compute in bfloat16 from this generation on (Ampere); the ones before do so in float16.
BFLOAT16_FROM = (8, 0)

#: "auto" is bfloat16 on a GPU that computes in it, "auto-float16" float16 on any; both are float32 on a CPU.
DTYPES = ("auto", "auto-float16", "float32", "bfloat16", "float16")

#: What CUDA and its libraries say when they find no room for themselves.
OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclasses.dataclass(frozen=True)
class Device:
    """Where a model computes, as torch names it, and in which numbers.

    Attributes:
      name: "cpu" or "cuda:0". dtype: a `torch.dtype`.
    """

    name: str
    dtype: Any

    @property
    def is_gpu(self) -> bool:
        return self.name.startswith("cuda")

    def allocated(self) -> int:
        """Bytes that this process's tensors take on the GPU; 0 on a CPU."""
        import torch

        return torch.cuda.memory_allocated(self.name) if self.is_gpu else 0

    def start_peak(self) -> None:
        """Measure the peak from now on."""
        import torch

        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats(self.name)

    def peak(self) -> int:
        """The most bytes allocated since `start_peak`."""
        import torch

        return torch.cuda.max_memory_allocated(self.name) if self.is_gpu else 0

    def room(self) -> int | None:
        """Bytes that could still be allocated now; None on a CPU, where nobody asks before it is too late."""
        import torch

        if not self.is_gpu:
            return None
        free, _ = torch.cuda.mem_get_info(self.name)
        # What torch's allocator holds without using it is room as well.
        return free + torch.cuda.memory_reserved(self.name) - torch.cuda.memory_allocated(self.name)


def free_unused() -> None:
    """Give back what torch's allocator holds without using it, on every GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def choose_device(dtype: str = "auto") -> Device:
    """The GPU with the most free memory, or the CPU where there is none.

    Args:
      dtype: one of `DTYPES`.
    """
    import torch

    # cuDNN's attention plans anew for each shape, which is each token that is generated, and with torch 2.13 answers
    # wrongly on some GPUs. In float32 the convolutions of a model shall not be rounded to TF32.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.allow_tf32 = False
    if not torch.cuda.is_available():
        if glob.glob("/dev/nvidia[0-9]*") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
            wanted = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
            raise RuntimeError(
                f"there is a GPU, but torch can't use it; {wanted}: update the driver (reelscribe doctor)"
            )
        return Device("cpu", torch.float32 if dtype.startswith("auto") else getattr(torch, dtype))
    free = [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]
    number = free.index(max(free))
    if dtype.startswith("auto"):
        able = torch.cuda.get_device_capability(number) >= BFLOAT16_FROM
        dtype = "bfloat16" if able and dtype == "auto" else "float16"
    return Device(f"cuda:{number}", getattr(torch, dtype))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU had no room for what was asked: tensors, or what CUDA's libraries load when they are first used."""
    import torch

    told = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return told or isinstance(error, torch.OutOfMemoryError)


def is_broken(error: BaseException) -> bool:
    """Whether the GPU's context is lost: every later call of this process would fail as well, so the job must stop."""
    import torch

    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
