"""WUPS: how near a wrong answer is to the right one in WordNet (Malinowski & Fritz 2014, Wu & Palmer 1994).

An answer is a list of things, apart by commas. Two things are as similar as the nearest two of their nouns in WordNet,
1 if they are the same text, and 0 if one is in WordNet as no noun.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

from pipeline.errors import ModelError

THRESHOLDS = (0.9, 0.0)
"""Below a threshold a similarity counts a tenth. At 0 it counts as it is."""

WEIGHT = 0.1

MISSING = (
    "WUPS is not computed: it needs NLTK and its WordNet data (python -m pip install nltk && "
    "python -m nltk.downloader wordnet)"
)


def version() -> str | None:
    """That of WordNet; None where NLTK or the data is missing. Nothing is fetched."""
    try:
        return str(_wordnet().get_version())
    except ModelError:
        return None


Similarity = Callable[[str, str], float]
"""Of two things, 0 to 1."""


def wups(answer: str, right: str, threshold: float, similar: Similarity | None = None) -> float:
    """The score of an answer, 0 to 1: the product over its things of the most similar right one, or the other way
    round if that is smaller. Raises ModelError without WordNet, unless `similar` is given."""
    given, true = (_things(each) for each in (answer, right))
    if not given or not true:
        return float(given == true)
    similar = similar or similarity
    return min(_covered(given, true, threshold, similar), _covered(true, given, threshold, similar))


def _covered(things: Sequence[str], by: Sequence[str], threshold: float, similar: Similarity) -> float:
    return prod(max(_weighed(similar(*sorted((one, other))), threshold) for other in by) for one in things)


def _weighed(similarity: float, threshold: float) -> float:
    return similarity if similarity >= threshold else WEIGHT * similarity


@cache
def similarity(one: str, other: str) -> float:
    """Wu and Palmer's similarity of two things, 0 to 1: that of the two nearest of their meanings as nouns."""
    if one == other:
        return 1.0
    wordnet = _wordnet()
    meanings = [wordnet.synsets(each.replace(" ", "_"), pos=wordnet.NOUN) for each in (one, other)]
    return max((each.wup_similarity(of) or 0.0 for each in meanings[0] for of in meanings[1]), default=0.0)


def _things(answer: str) -> list[str]:
    return [thing for each in answer.lower().split(",") if (thing := each.strip().replace("_", " "))]


@cache
def _wordnet() -> Any:
    try:
        from nltk.corpus import wordnet

        wordnet.ensure_loaded()
    except (ImportError, LookupError) as error:
        raise ModelError(MISSING) from error
    return wordnet
