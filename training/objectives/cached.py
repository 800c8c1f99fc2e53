"""Gradient caching (Gao et al. 2021, GradCache): the exact gradient of a batch that is too large for memory.

A contrastive loss needs all embeddings of a batch at once, so that gradients of its parts do not add up to its own. But
embeddings are small: the parts are embedded without a gradient, the loss gives the gradient of each embedding, and a
second pass carries it into the towers, part by part. It costs one more forward pass.

The gradient is exact if the embedding of a pair does not depend on the others of its part. Dropout is exact, because
the second pass draws the same numbers. A batch norm in training mode is not: it normalises by the part, and its running
statistics move twice. `batch_norms` names those.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    State = tuple[torch.Tensor, list[torch.Tensor]]

Part = TypeVar("Part")


def cached_backward(
    parts: Sequence[Part],
    encode: Callable[[Part], "tuple[torch.Tensor, torch.Tensor]"],
    loss: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
) -> "torch.Tensor":
    """Add the gradient of the loss of all parts together. Returns the loss, detached.

    `encode` gives the embeddings of a part, images and texts, each [pairs, dim]. It is called twice for each part, and
    must give the same embeddings: it draws random numbers from torch alone. `loss` is called once, for the embeddings
    of all parts in order. Parameters that it uses, as scale and bias, get their gradient. What it raises, for a loss
    that is NaN for example, is raised before a tower gets any gradient. With DistributedDataParallel, call this inside
    its `no_sync()`, then `average_gradients`.
    """
    import torch

    states = []
    embedded: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state())
            embedded.append(encode(part))
    images, texts = (torch.cat(each).requires_grad_() for each in zip(*embedded, strict=True))
    value = loss(images, texts)
    value.backward()  # type: ignore[no-untyped-call]
    start = 0
    for part, state, (first, _) in zip(parts, states, embedded, strict=True):
        rows = slice(start, start + len(first))
        start += len(first)
        with _random_numbers_from(state):
            again = encode(part)
        _backward(again, images.grad, texts.grad, rows)
    return value.detach()


def batch_norms(*towers: "torch.nn.Module") -> list[str]:
    """The batch norms that are in training mode, by their name in their tower: with one, caching is not exact."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return [
        name
        for tower in towers
        for name, module in tower.named_modules()
        if isinstance(module, _BatchNorm) and module.training
    ]


def warning(*towers: "torch.nn.Module") -> str | None:
    """A line that says that caching is not exact for the towers, or None if it is."""
    norms = batch_norms(*towers)
    if not norms:
        return None
    others = f" and {len(norms) - 1} others" if len(norms) > 1 else ""
    return (
        f"gradient caching is not exact: batch norm trains ({norms[0]}{others}); "
        'set batch_norm = "eval", or cached_batch = 0'
    )


def _backward(
    embeddings: "tuple[torch.Tensor, torch.Tensor]",
    of_images: "torch.Tensor | None",
    of_texts: "torch.Tensor | None",
    rows: slice,
) -> None:
    """Carry the gradients of a part's embeddings into the towers. A frozen tower without a head takes none."""
    import torch

    trained = [
        (each, gradient[rows])
        for each, gradient in zip(embeddings, (of_images, of_texts), strict=True)
        if each.requires_grad and gradient is not None
    ]
    if trained:
        torch.autograd.backward([each for each, _ in trained], [gradient for _, gradient in trained])


def _random_state() -> "State":
    import torch

    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _restore(state: "State") -> None:
    import torch

    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


@contextmanager
def _random_numbers_from(state: "State") -> "Iterator[None]":
    """Draw the random numbers of an earlier state inside, and go on with the present one afterwards."""
    present = _random_state()
    _restore(state)
    try:
        yield
    finally:
        _restore(present)
