"""Filters on how picture and caption fit. The column is made by a scorer named `clip`."""

from filters.core import REST, Filter


def aligned(least: float) -> Filter:
    """Cosine of the normalised embeddings, -1 to 1. Thresholds of one model mean nothing to another:
    LAION-400M used 0.3 with ViT-B/32; a matched pair there has about 0.32, a random one 0.18."""
    return Filter(
        "aligned", f"clip_similarity >= {least}", why=f"picture and caption have a cosine of at least {least:g}"
    )


def most_aligned(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by cosine: of the whole pool, not of other filters' survivors."""
    sql = f"clip_similarity >= (SELECT quantile_cont(clip_similarity, {1 - share:.6g}) FROM rows)"
    return Filter("most-aligned", sql, why=f"the pair is among the best {share:.0%} of the pool by cosine")


def most_aligned_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by cosine of the pairs that pass the filters before this one in the recipe."""
    sql = f"clip_similarity >= (SELECT quantile_cont(clip_similarity, {1 - share:.6g}) FROM rows WHERE {REST})"
    why = f"the pair is among the best {share:.0%} by cosine of what the filters before leave"
    return Filter("most-aligned-of-rest", sql, why=why)
