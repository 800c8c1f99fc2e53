"""The rank of this process, where none was given."""

from dataclasses import replace

import torch

from winnow.torch.order import Share


def present(share: Share) -> Share:
    """The share itself, or, if its `world` is 0, with the rank and the world of torch.distributed, else 0 of 1."""
    if share.world:
        return share
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return replace(share, rank=torch.distributed.get_rank(), world=torch.distributed.get_world_size())
    return replace(share, rank=0, world=1)
