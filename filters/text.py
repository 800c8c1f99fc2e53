"""Filters on the caption. The columns are made by a scorer named `captions`."""

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
    """Characters of the caption, white space included."""
    return Filter(
        "caption-length",
        f"captions_length BETWEEN {least} AND {most}",
        why=f"the caption has {least} to {most} characters: less says nothing, more is the text of a page",
    )


def words(least: int, most: int) -> Filter:
    """What stands between white space in the caption."""
    return Filter(
        "caption-words", f"captions_words BETWEEN {least} AND {most}", why=f"the caption has {least} to {most} words"
    )


def language(code: str, confidence: float) -> Filter:
    """fastText's language (ISO 639) with at least this probability, 0 to 1. It is low for names and short texts:
    of English alt texts of the web a quarter have less than 0.5. Raises ValueError for what is no code."""
    if not re.fullmatch("[a-z]{2,3}", code):
        raise ValueError(f"language {code!r}: name it by its code of two or three letters, en or yue")
    return Filter(
        f"surely-{code}",
        f"captions_language = '{code}' AND captions_language_confidence >= {confidence}",
        why=f"the caption is in the language {code!r} with a confidence of at least {confidence:g}",
    )


def repetition(most: float) -> Filter:
    """Share of neighbouring word pairs that came before, 0 to 1: 0 in nine of ten alt texts, 0.17 at their 99th
    percentile."""
    return Filter(
        "unrepeated",
        f"captions_repetition <= {most}",
        why=f"the caption is no list of the same words: at most {most:.0%} of its word pairs came before",
    )


def variety(least: float) -> Filter:
    """Distinct words among all, 0 to 1; long sentences repeat articles, and have less."""
    return Filter(
        "varied",
        f"captions_type_token_ratio >= {least}",
        why=f"at least {least:.0%} of the caption's words are distinct",
    )


def separators(most: float) -> Filter:
    """Commas, semicolons, bars, slashes and bullets a word. Above 0.4 are lists of search words (0.7 % of LAION's alt
    texts), and names like "Pripyat, Ukraine"; of captions that people wrote as sentences next to none."""
    return Filter(
        "unlisted",
        f"captions_separators <= {most}",
        why=f"the caption is no list of search words: it has at most {most:g} separators a word",
    )


def digits(most: float) -> Filter:
    """Share of the printed characters that are digits, 0 to 1."""
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
no_price = Filter("no-price", "NOT captions_price", why="a caption with a price is an offer and no description")
no_boilerplate = Filter(
    "no-boilerplate",
    "NOT captions_boilerplate",
    why="shop and gallery phrases or placeholders describe the page and not the picture",
)
no_markup = Filter("no-markup", "NOT captions_markup", why="tags and entities are the leftovers of a web page")
plain = Filter(
    "plain",
    " AND ".join(each.sql for each in (no_file_name, no_url, no_price, no_boilerplate, no_markup, spelled)),
    why="file names, addresses, prices, shop phrases and numbers are not descriptions",
)

named = Filter(
    "named",
    "imagenet_words_count >= 1",
    why="DataComp's text-based filter: the caption names something that is a class of ImageNet-21k",
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
    why="Conceptual Captions' rule: what describes a scene has a determiner and a preposition",
)
capitalised = Filter(
    "capitalised",
    "regexp_matches(caption, '^\\s*\\p{Lu}') AND caption <> upper(caption)",
    why="Conceptual Captions' rule: a sentence begins with a capital and is not all capitals",
)
