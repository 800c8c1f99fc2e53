"""Filters on what only the whole pool can tell. A column is made by the scorer of its kind, under the kind's name."""

from filters.core import Filter

unleaked = Filter(
    "unleaked", "NOT leaks_leaked", why="a model that was trained on the test pictures has seen the answers"
)


def rare(most: int) -> Filter:
    """Captions that at most `most` pairs of the pool have, letter case and white space aside."""
    return Filter(
        "rare", f"caption_counts_count <= {most}", why=f"a caption of more than {most} pictures describes none of them"
    )
