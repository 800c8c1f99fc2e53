"""How busy the GPUs of this machine are, as nvidia-smi reports it. torch is not needed, and no process is disturbed."""

import shutil
import subprocess

from pipeline.models.device import visible_gpus
from pipeline.status.record import Gpu

_ASKED = "index,name,utilization.gpu,memory.used,memory.total"


def busy() -> list[Gpu]:
    """The GPUs that this process may use. Empty without a GPU, or where nvidia-smi does not answer."""
    chosen = visible_gpus()
    if not chosen or not (program := shutil.which("nvidia-smi")):
        return []
    command = [program, f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits", "-i", ",".join(chosen)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [gpu for line in answer.splitlines() if (gpu := parse(line))]


def parse(line: str) -> Gpu | None:
    """A line of nvidia-smi's CSV. None for a GPU that reports no utilization, such as a slice of one (MIG)."""
    cells = [cell.strip() for cell in line.split(",")]
    try:
        index, name, share, used, memory = cells
        return Gpu(f"{index} {name}", int(share) / 100, int(used), int(memory))
    except ValueError:
        return None
