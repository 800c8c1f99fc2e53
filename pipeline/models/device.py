"""The device that models run on, and its precision."""

import ctypes
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Kind = Literal["cpu", "cuda"]


def kind() -> Kind:
    """cuda if there is a GPU, else cpu. Where there is no driver of a GPU, torch is not imported to say so."""
    if not _has_driver():
        return "cpu"
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
    if kind() == "cuda":
        import torch

        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = not _processor_features().isdisjoint(("avx512_bf16", "amx_tile"))
    return "bfloat16" if native else "float32"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let operations of torch use one core in this block.

    Small products are slower on more threads, which also may add in another order. Threads of a pool that each use all
    cores would wait for each other.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def describe(used: str | None = None) -> str:
    """One line about the device and the precision that is used; unset, the best one."""
    import torch

    name = torch.cuda.get_device_name() if kind() == "cuda" else f"no GPU, {platform.machine()} processor"
    return f"{name}, {used or best_precision()}, torch {torch.__version__}"


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _processor_features() -> frozenset[str]:
    """The features that Linux lists for an x86 processor; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())
