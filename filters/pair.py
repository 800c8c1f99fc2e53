"""Filters on how well picture and caption match. They read the columns of scorers with the name of their kind."""

from filters import best
from filters.core import Filter


def aligned(least: float) -> Filter:
    """Minimum cosine of the normalised embeddings, -1 to 1.

    A threshold is valid for one model only. LAION-400M used 0.3 with ViT-B/32, where a matched pair has about 0.32 and
    a random pair 0.18.
    """
    return Filter(
        "aligned", f"clip_similarity >= {least}", why=f"picture and caption have a cosine of at least {least:g}"
    )


def most_aligned(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by cosine, including pairs that other filters drop."""
    why = f"the pair is among the best {share:.0%} of the pool by cosine"
    return best.of_pool("most-aligned", "clip_similarity", share, why)


def most_aligned_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by cosine of the pairs that pass the filters before this one in the recipe."""
    why = f"the pair is among the best {share:.0%} by cosine of the pairs that pass the earlier filters"
    return best.of_rest("most-aligned-of-rest", "clip_similarity", share, why)


def learned(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by the scorer `learned`, models of folds of this source."""
    why = f"the pair is among the best {share:.0%} of the pool by models that were not trained on it"
    return best.of_pool("learned", "learned_similarity", share, why)


def learned_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by the scorer `learned` of the pairs that pass the filters before this one."""
    why = f"the pair is among the best {share:.0%} of those that pass the earlier filters, by models not trained on it"
    return best.of_rest("learned-of-rest", "learned_similarity", share, why)


def best_mixed(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by the scorer `mixed`, a learned mix of score columns."""
    why = f"the pair is among the best {share:.0%} of the pool by a mix of scores, learned without it"
    return best.of_pool("best-mixed", "mixed_score", share, why)


def best_mixed_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by the scorer `mixed` of the pairs that pass the filters before this one."""
    why = f"the pair is among the best {share:.0%} of those that pass the earlier filters, by a learned mix of scores"
    return best.of_rest("best-mixed-of-rest", "mixed_score", share, why)


def most_aligned_masked(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by the cosine without text, by a text scorer named `text`."""
    why = f"the pair is among the best {share:.0%} of the pool by cosine when text in the picture is masked"
    return best.of_pool("most-aligned-masked", "text_masked_similarity", share, why)


def unread(most: float) -> Filter:
    """Maximum share of the caption's words that stand in the picture, 0 to 1, by a text scorer named `text`."""
    return Filter(
        "unread",
        f"text_words_read <= {most}",
        why=f"at most {most:.0%} of the caption's words are written in the picture: it does not only repeat them",
    )


def particular(least: float) -> Filter:
    """Minimum negCLIPLoss, at most about 0: the cosine minus what matches everything.

    A threshold is valid for one pool only.
    """
    return Filter(
        "particular",
        f"neg_clip_loss_score >= {least}",
        why=f"picture and caption match each other better than others: their negCLIPLoss is at least {least:g}",
    )


def most_particular(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by negCLIPLoss, the cosine minus what matches everything."""
    why = f"the pair is among the best {share:.0%} of the pool by negCLIPLoss"
    return best.of_pool("most-particular", "neg_clip_loss_score", share, why)


def most_particular_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by negCLIPLoss of the pairs that pass the filters before this one."""
    why = f"the pair is among the best {share:.0%} by negCLIPLoss of the pairs that pass the earlier filters"
    return best.of_rest("most-particular-of-rest", "neg_clip_loss_score", share, why)


def near(least: float) -> Filter:
    """Minimum NormSim with p = infinity, -1 to 1: the cosine of the picture and the nearest target picture."""
    return Filter(
        "near", f"norm_sim_inf >= {least}", why=f"the picture has a cosine of at least {least:g} with a target picture"
    )


def nearest(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by NormSim with p = infinity."""
    why = f"the picture is among the {share:.0%} of the pool that are nearest to a target picture"
    return best.of_pool("nearest", "norm_sim_inf", share, why)


def nearest_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by NormSim with p = infinity of the pairs that pass the filters before this one."""
    why = f"the picture is among the {share:.0%} nearest to a target picture of the pairs that pass the earlier filters"
    return best.of_rest("nearest-of-rest", "norm_sim_inf", share, why)
