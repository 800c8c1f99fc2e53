"""Filters on content that is unsafe to train on.

`safe` reads the column of a prompts scorer named `nsfw`, `nsfw` that of the trained classifier of a scorer named
`unsafe`.
"""

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


def nsfw(most: float) -> Filter:
    """Maximum probability by open_nsfw that the picture is pornographic, 0 to 1.

    Its authors call a picture below 0.2 safe with high probability, and above 0.8 unsafe. Of 400 photographs of
    Flickr8k, which has none, 5 % are at 0.2 or above.
    """
    return Filter(
        "sfw",
        f"unsafe_nsfw <= {most}",
        why=f"a trained classifier calls the picture pornographic with a probability of at most {most:g}",
    )


sfw = nsfw(0.2)
