"""Named recipes. The recipe is the documentation."""

from filters import image, pair, text
from filters.core import Recipe

everything = Recipe("everything")
"""Every downloaded pair: the arm that everything else is measured against."""

datacomp_basic = Recipe("datacomp-basic-like", (text.english, text.worded, image.large, image.shaped))
"""DataComp's basic filtering (Gadre et al. 2023, section 3.1); a smaller language model takes the original's place."""

clip_top30 = Recipe("clip-top30", (pair.most_aligned(0.3),))
"""DataComp's CLIP score filtering: the best 30 % of the pool."""

laion_400m = Recipe("laion-400m-like", (pair.aligned(0.3),))
"""LAION-400M's threshold (Schuhmann et al. 2021), for ViT-B/32 alone."""

default = Recipe("default", (text.worded, text.plain, image.shaped, pair.most_aligned(0.5)))
"""A careful start for a source nobody has looked at: remove what is no description, keep the better half."""
