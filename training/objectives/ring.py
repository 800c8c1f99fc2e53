"""SigLIP's loss over the processes of torch.distributed: captions go round, and no process ever holds the whole matrix.

Each process compares its pictures with its own captions, hands these to the next process, gets those of the one before,
and so on until all have visited (Zhai et al. 2023). The gradient of captions is computed while they visit,
and travels with them until it is home. So memory does not grow with the number of processes, and the backward pass does
not communicate.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.objectives.distributed import all_numbers, world
from training.objectives.matches import is_match
from training.objectives.sigmoid import of_logits


def ring_sigmoid(
    images: Tensor,
    texts: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    group: Tensor | None = None,
    chunk: int = 0,
) -> Tensor:
    """The `sigmoid` of this process's pictures with all captions, over the number of its pictures.

    Embeddings are [pairs of this process, dim], and all processes have as many. `group`, int64 [pairs], is its share;
    numbers of pictures are those of the whole batch. Captions are compared `chunk` at a time, or where it is 0, all
    captions of a process at once. The mean of the loss over the processes is the loss of the whole batch. For gradients
    see `distributed`. A second derivative is not possible.
    """
    given = [torch.as_tensor(each, dtype=images.dtype, device=images.device) for each in (scale, bias)]
    loss: Tensor = _Ring.apply(images, texts, *given, all_numbers(images, group), chunk or len(texts))
    return loss


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, numbers: Tensor, chunk: int
    ) -> Tensor:
        rank, processes = world()
        loss = torch.zeros_like(scale)
        of_images, of_scale, of_bias = torch.zeros_like(images), torch.zeros_like(scale), torch.zeros_like(bias)
        visitors, of_visitors = texts.detach(), torch.zeros_like(texts)
        by_process = numbers.chunk(processes)
        for step in range(processes):
            theirs = by_process[(rank - step) % processes]
            for start in range(0, len(visitors), chunk):
                part = slice(start, start + chunk)
                matches = is_match(by_process[rank], theirs[part])
                made = _with_gradients(images, visitors[part], scale, bias, matches)
                for total, each in zip((loss, of_images, of_visitors[part], of_scale, of_bias), made, strict=True):
                    total += each
            if step < processes - 1:
                visitors, of_visitors = _pass_on(visitors, of_visitors)
        if processes > 1:
            (of_visitors,) = _pass_on(of_visitors)  # the last step brings each gradient to the process of its captions
        ctx.save_for_backward(of_images, of_visitors, of_scale, of_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradients[0] * each for each in ctx.saved_tensors), None, None)


def _with_gradients(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, matches: Tensor) -> tuple[Tensor, ...]:
    """The loss of a block, and its gradients by images, texts, scale and bias."""
    leaves = [each.detach().requires_grad_() for each in (images, texts, scale, bias)]
    with torch.enable_grad():
        loss = of_logits(leaves[2] * leaves[0] @ leaves[1].T + leaves[3], matches)
        return (loss.detach(), *torch.autograd.grad(loss, leaves))


def _pass_on(*tensors: Tensor) -> list[Tensor]:
    """Send tensors to the next process of the ring. Returns those of the process before."""
    rank, processes = world()
    received = [torch.empty_like(each) for each in tensors]
    sends = [dist.P2POp(dist.isend, each.contiguous(), (rank + 1) % processes) for each in tensors]
    receives = [dist.P2POp(dist.irecv, each, (rank - 1) % processes) for each in received]
    for request in dist.batch_isend_irecv(sends + receives):
        request.wait()
    return received
