"""Which pairs of a batch match: those whose pictures have the same number.

A pair may have several numbers, as [pairs, 2] of picture and text. Pairs match that share any of them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def is_match(rows: "torch.Tensor", columns: "torch.Tensor") -> "torch.Tensor":
    """Bool, [rows, columns]: whether the numbers, [rows] and [columns], are the same; of [rows, n], whether any is."""
    same = rows[:, None] == columns
    return same.any(dim=-1) if rows.ndim > 1 else same


def distribution(rows: "torch.Tensor", columns: "torch.Tensor") -> "torch.Tensor":
    """Targets of cross-entropy, [rows, columns]: each row is uniform over its matches, of which it must have one."""
    matches = is_match(rows, columns).float()
    return matches / matches.sum(dim=1, keepdim=True)


def numbers(embeddings: "torch.Tensor", group: "torch.Tensor | None") -> "torch.Tensor":
    """The numbers of the pairs, int64 [pairs] or [pairs, n]: `group`, or without one a number of its own for each."""
    import torch

    return torch.arange(len(embeddings), device=embeddings.device) if group is None else group
