"""Filters on how picture and caption fit. Each scorer is expected under the name of its kind."""

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


def most_particular(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by negCLIPLoss, the cosine less what fits everything."""
    sql = f"neg_clip_loss_score >= (SELECT quantile_cont(neg_clip_loss_score, {1 - share:.6g}) FROM rows)"
    return Filter("most-particular", sql, why=f"the pair is among the best {share:.0%} of the pool by negCLIPLoss")


def nearest_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by NormSim with p = infinity of the pairs that pass the filters before this one."""
    sql = f"norm_sim_inf >= (SELECT quantile_cont(norm_sim_inf, {1 - share:.6g}) FROM rows WHERE {REST})"
    why = f"the picture is among the {share:.0%} nearest to a target picture of what the filters before leave"
    return Filter("nearest-of-rest", sql, why=why)
