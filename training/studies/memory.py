"""The peak memory of what this process computes: of the GPU if there is one, else of the process."""

from pipeline.models import device
from pipeline.process import machine


def reset() -> None:
    """Let the peak begin anew. Where the system cannot do that, it stays the one since the process started."""
    if device.kind() == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        machine.reset_peak_memory()


def peak_mb() -> int:
    """The peak in MiB."""
    if device.kind() == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() >> 20
    return machine.peak_memory_mb()
