"""Filters on what should not be trained on. The column is made by a prompts scorer named `nsfw`."""

from filters.core import Filter


def safe(most: float) -> Filter:
    """Probability of the prompts "nsfw" against ordinary ones, 0 to 1. They were not validated: look at both sides of
    the threshold, and where it matters let people or a trained classifier decide."""
    return Filter(
        "safe", f"nsfw_probability <= {most}", why=f"what is not safe for work has a probability of at most {most:g}"
    )
