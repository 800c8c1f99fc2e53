"""Where models run here, and in which precision."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Kind = Literal["cpu", "cuda"]


def kind() -> Kind:
    """The GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def each() -> Sequence[str]:
    """The GPUs that this process may use, each as `CUDA_VISIBLE_DEVICES` names it alone.

    Without torch, so that a source without models need not load it: GPUs are Linux's /dev/nvidia0 and so on.
    """
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for each in named.split(",") if (device := each.strip())]
    return sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")), key=int)


def precision() -> str:
    """bfloat16 where the device computes in it, and does not merely emulate it; float32 elsewhere."""
    import torch

    if kind() == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def described(computing: str | None = None) -> str:
    """One line for a person; `computing` in this precision, the best one if unset."""
    import torch

    name = torch.cuda.get_device_name() if kind() == "cuda" else f"no GPU, {platform.machine()} processor"
    return f"{name}, {computing or precision()}, torch {torch.__version__}"
