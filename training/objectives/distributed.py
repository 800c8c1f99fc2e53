"""CLIP's loss over the processes of torch.distributed, each with its share of the batch, all of the same size.

The gradients of the processes are to be averaged, by `average_gradients` or by DistributedDataParallel. The average is
the gradient of one process with the whole batch: for parameters of towers, scale and bias. The embeddings of a process
alone get as many times their gradient as there are processes. Nothing here depends on the backend: gloo and nccl run
the same code. Without torch.distributed there is one process, and every loss is the plain one.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy

from training.objectives.matches import distribution
from training.objectives.softmax import of_logits


def world() -> tuple[int, int]:
    """This process's rank, and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gathered_softmax(images: Tensor, texts: Tensor, scale: Tensor | float, group: Tensor | None = None) -> Tensor:
    """The `softmax` of the whole batch, computed by every process: as many rows and columns as all have pairs.

    Embeddings are [pairs of this process, dim], `group` its share, int64 [pairs]; numbers of pictures are those of the
    whole batch.
    """
    return of_logits(scale * gather(images) @ gather(texts).T, all_numbers(images, group))


def local_softmax(images: Tensor, texts: Tensor, scale: Tensor | float, group: Tensor | None = None) -> Tensor:
    """The `softmax` of this process's pictures over all captions, and of its captions over all pictures.

    Embeddings and `group` as for `gathered_softmax`. Its mean over the processes is the loss of the whole batch. A
    process holds its own rows and columns only, two matrices of [pairs, pairs of all].
    """
    numbers = all_numbers(images, group)
    rank, pairs = world()[0], len(images)
    targets = distribution(numbers[rank * pairs : (rank + 1) * pairs], numbers)
    to_texts, to_images = scale * images @ gather(texts).T, scale * texts @ gather(images).T
    targets = targets.to(torch.promote_types(to_texts.dtype, torch.float32))
    return (cross_entropy(to_texts, targets) + cross_entropy(to_images, targets)) / 2


def gather(embeddings: Tensor) -> Tensor:
    """The embeddings of all processes by rank, [pairs of all, dim]. Gradients reach the process they came from."""
    made: Tensor = _Gather.apply(embeddings)
    return made


def all_numbers(embeddings: Tensor, group: Tensor | None) -> Tensor:
    """The numbers of all pairs by rank, int64 [pairs of all]. Without a `group` every pair has its own."""
    if group is None:
        return torch.arange(len(embeddings) * world()[1], device=embeddings.device)
    return _gathered(group)


def mean_loss(loss: Tensor) -> Tensor:
    """The mean of the processes' losses, without a gradient: the loss of the whole batch, for reporting."""
    return _gathered(loss.detach().reshape(1)).mean()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, as DistributedDataParallel does."""
    for parameter in parameters:
        if world()[1] > 1 and parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world()[1]


def _gathered(tensor: Tensor) -> Tensor:
    if world()[1] == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world()[1])]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        return _gathered(embeddings) if world()[1] > 1 else embeddings.view_as(embeddings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (total,) = gradients
        if world()[1] == 1:
            return total
        total = total.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world()[1])[world()[0]]
