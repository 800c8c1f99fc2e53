"""Losses over real processes: their mean, and the mean of their gradients, are those of one process with all pairs."""

import multiprocessing
import os
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import normalize

from training.objectives.distributed import average_gradients, gathered_softmax, local_softmax, mean_loss
from training.objectives.ring import ring_sigmoid
from training.objectives.sigmoid import sigmoid
from training.objectives.softmax import softmax

PAIRS, DIM = 24, 8  # of the whole batch
GROUP = torch.arange(PAIRS) // 5 * 7 % 11  # captions of one picture, also over processes
LOSSES = {
    "gathered": (gathered_softmax, softmax, 1),
    "local": (local_softmax, softmax, 1),
    "ring": (ring_sigmoid, sigmoid, 2),
    "ring in chunks": (partial(ring_sigmoid, chunk=5), sigmoid, 2),
}
"""Over processes, of one process, and how many of scale and bias it has."""


def one_step(loss, learned, group, share):
    """Loss and gradients of two linear towers, scale and bias, on the pairs of the slice `share`."""
    torch.manual_seed(0)
    pictures, captions = torch.randn(2, PAIRS, DIM)
    towers = torch.nn.Linear(DIM, DIM), torch.nn.Linear(DIM, DIM)
    scalars = [torch.nn.Parameter(torch.tensor(each)) for each in (9.0, -3.0)[:learned]]
    embeddings = [normalize(t(x[share]), dim=-1) for t, x in zip(towers, (pictures, captions), strict=True)]
    made = loss(*embeddings, *scalars, None if group is None else group[share])
    made.backward()
    parameters = [*towers[0].parameters(), *towers[1].parameters(), *scalars]
    average_gradients(parameters)
    return [mean_loss(made), *(each.grad for each in parameters)]


def work(rank, processes, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    pairs = PAIRS // processes
    share = slice(rank * pairs, (rank + 1) * pairs)
    made = {
        f"{name}, {grouped}": one_step(loss, learned, GROUP if grouped else None, share)
        for name, (loss, _, learned) in LOSSES.items()
        for grouped in (False, True)
    }
    torch.save(made, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_together_are_one_process(processes, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    workers = [context.Process(target=work, args=(rank, processes, tmp_path), daemon=True) for rank in range(processes)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(120)
        assert each.exitcode == 0
    for rank in range(processes):
        for name, made in torch.load(tmp_path / f"{rank}.pt").items():
            loss, grouped = name.split(", ")
            alone = one_step(*LOSSES[loss][1:], GROUP if grouped == "True" else None, slice(None))
            for one, other in zip(made, alone, strict=True):
                torch.testing.assert_close(
                    one, other, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
                )


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_without_torch_distributed_there_is_one_process(name, grouped):
    group, (over, alone, learned) = GROUP if grouped else None, LOSSES[name]
    for one, other in zip(*(one_step(each, learned, group, slice(None)) for each in (over, alone)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_gradient_of_the_ring_is_that_of_its_value():
    torch.manual_seed(1)
    leaves = [torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    leaves += [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (2.0, -1.0)]
    assert torch.autograd.gradcheck(lambda *each: ring_sigmoid(*each, GROUP[:5], chunk=2), leaves)
