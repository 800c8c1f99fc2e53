"""Filters on scores that depend on the whole pool. They read the columns of scorers with the name of their kind."""

from filters.core import Filter

unleaked = Filter(
    "unleaked", "NOT leaks_leaked", why="a model that was trained on the test pictures has seen the answers"
)
targeted = Filter(
    "targeted",
    "clusters_near_target",
    why="DataComp's image-based filter: the picture is in a cluster that is also the nearest of some target picture",
)
uncontradicted = Filter(
    "uncontradicted",
    "NOT label_errors_contradicted",
    why="a learner that was trained on other pictures is confident of another label",
)
balanced = Filter(
    "balanced",
    "entries_draw < entries_probability",
    why="MetaCLIP's balancing: few of the many captions that match only common entries are kept, at random",
)
queried = Filter(
    "queried",
    "entries_matched > 0 AND entries_rank <= "
    "greatest(1, 20000 * (SELECT count(*) FROM rows WHERE status = 'ok') / 400000000)",
    why="CLIP's rule: the caption is among 20,000 random ones of one of its queries (the cap for 400 million pairs)",
)


def capped(most: int) -> Filter:
    """Pairs that are among the first `most`, in random order, of one of the entries that their captions match."""
    return Filter(
        "capped",
        f"entries_matched > 0 AND entries_rank <= {most}",
        why=f"the caption is among the first {most}, in random order, of one of the entries that it matches",
    )


def hardest(eps: float) -> Filter:
    """SemDeDup's rule: no picture of the cluster that is less central has a cosine of 1 - eps or more with this one.

    It compares all downloaded pairs, including those that other filters drop. A pair may be dropped for one that is
    dropped itself.
    """
    return Filter(
        "hardest",
        f"semantic_harder > {eps}",
        why=f"a less central picture of the cluster is within a cosine distance of {eps:g}",
    )


unshared = Filter(
    "unshared",
    "picture_counts_urls < 5",
    why="the same bytes at many URLs are placeholders for pictures that no longer exist",
)


def rare(most: int) -> Filter:
    """Captions that at most `most` pairs of the pool have, regardless of letter case and white space."""
    return Filter(
        "rare", f"caption_counts_count <= {most}", why=f"a caption of more than {most} pictures describes none of them"
    )


def uncrowded(most: int) -> Filter:
    """Pictures in groups of at most `most` pairs, where a group is a chain of near-duplicates.

    It drops the whole group, as suits a placeholder. To keep the best of near-duplicates, end the recipe in `Distinct`.
    """
    return Filter(
        "uncrowded",
        f"duplicates_count <= {most}",
        why=f"a picture that more than {most} pairs share, or nearly, is a placeholder or an advertisement",
    )
