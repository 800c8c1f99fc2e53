"""The device that models run on, and its precision."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Kind = Literal["cpu", "cuda"]


def kind() -> Kind:
    """cuda if there is a GPU, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def visible_gpus() -> Sequence[str]:
    """The GPUs that this process may use, as values of `CUDA_VISIBLE_DEVICES`.

    It does not import torch, which a source without models does not need: GPUs are /dev/nvidia0 and so on, on Linux.
    """
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for each in named.split(",") if (device := each.strip())]
    return sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")), key=int)


def best_precision() -> str:
    """bfloat16 if the device computes in it natively, else float32."""
    import torch

    if kind() == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def describe(used: str | None = None) -> str:
    """One line about the device and the precision that is used; unset, the best one."""
    import torch

    name = torch.cuda.get_device_name() if kind() == "cuda" else f"no GPU, {platform.machine()} processor"
    return f"{name}, {used or best_precision()}, torch {torch.__version__}"
