"""Which pairs of a batch match. The number of a pair's picture decides: pairs with the same number match each other."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def is_match(rows: "torch.Tensor", columns: "torch.Tensor") -> "torch.Tensor":
    """Bool, [rows, columns]: whether the numbers, [rows] and [columns], are the same."""
    return rows[:, None] == columns


def distribution(rows: "torch.Tensor", columns: "torch.Tensor") -> "torch.Tensor":
    """Targets of cross-entropy, [rows, columns]: each row is uniform over its matches, of which it must have one."""
    matches = is_match(rows, columns).float()
    return matches / matches.sum(dim=1, keepdim=True)


def numbers(embeddings: "torch.Tensor", group: "torch.Tensor | None") -> "torch.Tensor":
    """The numbers of the pairs, int64 [pairs]: `group`, or without one a number of its own for each."""
    import torch

    return torch.arange(len(embeddings), device=embeddings.device) if group is None else group
