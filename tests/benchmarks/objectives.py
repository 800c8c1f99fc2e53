"""Memory of the losses over processes as the world grows: python tests/benchmarks/objectives.py [PAIRS OF A PROCESS]

Every process has as many pairs of 256 numbers, and computes each loss and its gradient once. Printed is by how much the
peak memory of a process rises, the most of all processes. Each world and loss has processes of its own.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import normalize

from training.objectives.distributed import gathered_softmax, local_softmax
from training.objectives.ring import ring_sigmoid

DIM, CHUNK = 256, 128
LOSSES = {
    "gathered softmax": (gathered_softmax, 1),
    "local softmax": (local_softmax, 1),
    "sigmoid ring": (ring_sigmoid, 2),
    f"sigmoid ring, {CHUNK} captions at a time": (partial(ring_sigmoid, chunk=CHUNK), 2),
}


def peak():
    """MiB of this process, at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step(loss, learned, pairs):
    images, texts = (normalize(torch.randn(pairs, DIM), dim=-1).requires_grad_() for _ in range(2))
    scalars = [torch.tensor(each, requires_grad=True) for each in (10.0, -10.0)[:learned]]
    loss(images, texts, *scalars).backward()


def work(rank, world, name, pairs, folder, peaks):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    step(*LOSSES[name], 2 * CHUNK)  # what libraries take once
    before = peak()
    step(*LOSSES[name], pairs)
    peaks.put(peak() - before)
    dist.destroy_process_group()


def measure(name, world, pairs):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    peaks = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            context.Process(target=work, args=(rank, world, name, pairs, Path(folder), peaks), daemon=True)
            for rank in range(world)
        ]
        for each in workers:
            each.start()
        made = [peaks.get(timeout=300) for _ in workers]
        for each in workers:
            each.join()
    return max(made)


if __name__ == "__main__":
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "262144"  # glibc of the workers keeps no fragments of large blocks
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    for name in LOSSES:
        figures = ", ".join(f"{world}: {measure(name, world, pairs):,.0f}" for world in (1, 2, 4))
        print(f"{name}, MiB by processes of {pairs} pairs: {figures}", flush=True)
