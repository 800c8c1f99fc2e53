"""Filters on content that is unsafe to train on. They read the column of a prompts scorer named `nsfw`."""

from filters.core import Filter


def safe(most: float) -> Filter:
    """Maximum probability of the prompts "nsfw" against ordinary ones, 0 to 1.

    The prompts were not validated. Inspect pairs on both sides of the threshold. Where safety matters, let people or a
    trained classifier decide.
    """
    return Filter(
        "safe",
        f"nsfw_probability <= {most}",
        why=f"the picture is not safe for work with a probability of at most {most:g}",
    )
