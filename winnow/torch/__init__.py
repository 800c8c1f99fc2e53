"""Datasets for PyTorch straight from the shards of a store, without an export (`docs/torch.md`).

>>> from winnow.torch import Pairs
>>> pairs = Pairs(winnow.Manifest.open("cc3m"), transform=preprocess)
>>> loader = DataLoader(pairs.stream(batch_size=256), batch_size=256, num_workers=8)
"""

from winnow.torch.pairs import Pairs
from winnow.torch.sampler import PairSampler
from winnow.torch.stream import PairStream

__all__ = ["PairSampler", "PairStream", "Pairs"]
