"""Filters on what only the whole pool can tell. A column is made by the scorer of its kind, under the kind's name."""

from filters.core import Filter

unleaked = Filter(
    "unleaked", "NOT leaks_leaked", why="a model that was trained on the test pictures has seen the answers"
)
targeted = Filter(
    "targeted",
    "clusters_near_target",
    why="DataComp's image-based filter: the picture is in a cluster that is also the nearest of some target picture",
)
balanced = Filter(
    "balanced",
    "entries_draw < entries_probability",
    why="MetaCLIP's balancing: of the many captions that only match common entries few are kept, by lot",
)
queried = Filter(
    "queried",
    "entries_matched > 0 AND entries_rank <= "
    "greatest(1, 20000 * (SELECT count(*) FROM rows WHERE status = 'ok') / 400000000)",
    why="CLIP's rule: by lot, the caption is among the first 20,000 of one of its queries; 400 million pairs were left",
)


def capped(most: int) -> Filter:
    """Pairs that are, in an order by lot, among the first `most` of one of the entries that their captions match."""
    return Filter(
        "capped",
        f"entries_matched > 0 AND entries_rank <= {most}",
        why=f"by lot, the caption is among the first {most} of one of the entries that it matches",
    )


def hardest(eps: float) -> Filter:
    """SemDeDup's rule: no picture of the cluster that is less central has a cosine of 1 - eps or more with this one.

    It looks at all downloaded pairs, those that other filters drop as well, and a pair goes also for one that goes.
    """
    return Filter(
        "hardest",
        f"semantic_harder > {eps}",
        why=f"a picture less like its cluster shows the same up to a cosine distance of {eps:g}",
    )


unshared = Filter(
    "unshared", "picture_counts_urls < 5", why="the same bytes under many addresses stand in for pictures that are gone"
)


def rare(most: int) -> Filter:
    """Captions that at most `most` pairs of the pool have, letter case and white space aside."""
    return Filter(
        "rare", f"caption_counts_count <= {most}", why=f"a caption of more than {most} pictures describes none of them"
    )


def uncrowded(most: int) -> Filter:
    """Pictures that, with all their near-duplicates and those of these, are at most `most` of the pool.

    It drops the whole crowd, as a placeholder's; to keep the best of near-duplicates end the recipe in `Distinct`.
    """
    return Filter(
        "uncrowded",
        f"duplicates_count <= {most}",
        why=f"a picture that more than {most} pairs show, or nearly, is a placeholder or an advertisement",
    )
