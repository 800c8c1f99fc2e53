"""Filters on the caption. They read the columns of a scorer named `captions`."""

import re

from filters.core import Filter

worded = Filter(
    "worded",
    "captions_words > 2 AND captions_length > 5",
    why="DataComp's basic filter: more than 2 words and 5 characters",
)
two_words = Filter(
    "two-words",
    "captions_words > 1 AND captions_length > 5",
    why="DataComp's image-based filter: more than 1 word and 5 characters",
)
english = Filter("english", "captions_language = 'en'", why="the training task is English")


def length(least: int, most: int) -> Filter:
    """Range of the number of characters, including white space."""
    return Filter(
        "caption-length",
        f"captions_length BETWEEN {least} AND {most}",
        why=f"the caption has {least} to {most} characters: a shorter one describes nothing, a longer one is page text",
    )


def words(least: int, most: int) -> Filter:
    """Range of the number of words, separated by white space."""
    return Filter(
        "caption-words", f"captions_words BETWEEN {least} AND {most}", why=f"the caption has {least} to {most} words"
    )


def language(code: str, confidence: float) -> Filter:
    """fastText's language (ISO 639) with at least this probability, 0 to 1.

    The probability is low for names and short texts: a quarter of English alt texts of the web have less than 0.5.
    Raises ValueError if `code` is not a language code.
    """
    if not re.fullmatch("[a-z]{2,3}", code):
        raise ValueError(f"language {code!r}: use its code of two or three letters, such as en or yue")
    return Filter(
        f"surely-{code}",
        f"captions_language = '{code}' AND captions_language_confidence >= {confidence}",
        why=f"the caption is in the language {code!r} with a confidence of at least {confidence:g}",
    )


def repetition(most: float) -> Filter:
    """Maximum share of adjacent word pairs that occurred earlier in the caption, 0 to 1.

    It is 0 in nine of ten alt texts, and 0.17 at their 99th percentile.
    """
    return Filter(
        "unrepeated",
        f"captions_repetition <= {most}",
        why=f"the caption does not repeat itself: at most {most:.0%} of its word pairs occurred earlier in it",
    )


def variety(least: float) -> Filter:
    """Minimum share of distinct words, 0 to 1. It is lower for long sentences, which repeat articles."""
    return Filter(
        "varied",
        f"captions_type_token_ratio >= {least}",
        why=f"at least {least:.0%} of the caption's words are distinct",
    )


def separators(most: float) -> Filter:
    """Maximum number of commas, semicolons, bars, slashes and bullets per word.

    Lists of search words (0.7 % of LAION's alt texts) have more than 0.4, and so do names like "Pripyat, Ukraine".
    Hardly any caption that a person wrote as a sentence does.
    """
    return Filter(
        "unlisted",
        f"captions_separators <= {most}",
        why=f"the caption is not a list of search words: it has at most {most:g} separators per word",
    )


def digits(most: float) -> Filter:
    """Maximum share of digits among the printed characters, 0 to 1."""
    return Filter(
        "spelled", f"captions_digits <= {most}", why=f"at most {most:.0%} of the caption's characters are digits"
    )


unrepeated = repetition(0.3)
varied = variety(0.4)
unlisted = separators(0.4)
spelled = digits(0.5)
surely_english = language("en", 0.5)

no_file_name = Filter("no-file-name", "NOT captions_file_name", why="a file name like IMG_2041.JPG describes nothing")
no_url = Filter("no-url", "NOT captions_url", why="a caption with a web address is written for search engines")
no_price = Filter("no-price", "NOT captions_price", why="a caption with a price is an offer, not a description")
no_boilerplate = Filter(
    "no-boilerplate",
    "NOT captions_boilerplate",
    why="shop phrases, gallery phrases and placeholders describe the page, not the picture",
)
no_markup = Filter("no-markup", "NOT captions_markup", why="HTML tags and entities are remains of a web page")
plain = Filter(
    "plain",
    " AND ".join(each.sql for each in (no_file_name, no_url, no_price, no_boilerplate, no_markup, spelled)),
    why="file names, addresses, prices, shop phrases and numbers are not descriptions",
)

named = Filter(
    "named",
    "imagenet_words_count >= 1",
    why="DataComp's text-based filter: the caption names a class of ImageNet-21k",
)
lettered = Filter("lettered", "captions_length >= 5", why="LAION's rule: a caption has at least 5 characters")

_DETERMINERS = "a|an|the|this|that|these|those|some|any|each|every|another|my|your|his|her|its|our|their"
_PREPOSITIONS = (
    "about|above|across|after|against|along|among|around|at|before|behind|below|beneath|beside|between|by|down|during|"
    "for|from|in|inside|into|near|of|off|on|onto|out|outside|over|past|through|to|toward|towards|under|up|upon|with|"
    "within|without"
)
phrased = Filter(
    "phrased",
    f"regexp_matches(lower(caption), '\\b({_DETERMINERS})\\b') "
    f"AND regexp_matches(lower(caption), '\\b({_PREPOSITIONS})\\b')",
    why="Conceptual Captions' rule: a description of a scene has a determiner and a preposition",
)
capitalised = Filter(
    "capitalised",
    "regexp_matches(caption, '^\\s*\\p{Lu}') AND caption <> upper(caption)",
    why="Conceptual Captions' rule: a sentence begins with a capital letter and is not all capitals",
)
