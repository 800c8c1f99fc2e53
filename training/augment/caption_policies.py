"""Augmentation of captions with nlpaug, by named policies. The same caption and seed always give the same version."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from pipeline.errors import ModelError

VERSION = 1

SHARE = 0.1
"""The share of the words that a step changes, at least one (Wei & Zou 2019, EDA, which has swap and deletion)."""

WORDNET = (
    "synonyms need NLTK and its WordNet data: python -m pip install nltk && "
    "python -m nltk.downloader wordnet omw-1.4 averaged_perceptron_tagger_eng; or choose another caption_policy"
)


def _deletion() -> Any:
    from nlpaug.augmenter.word import RandomWordAug

    return RandomWordAug(action="delete", **_WORDS)


def _swap() -> Any:
    """Swaps neighbouring words."""
    from nlpaug.augmenter.word import RandomWordAug

    return RandomWordAug(action="swap", **_WORDS)


def _spelling() -> Any:
    """Common misspellings, from nlpaug's own list."""
    from nlpaug.augmenter.word import SpellingAug

    made = SpellingAug(include_reverse=False, **_WORDS)
    for mistakes in made.model.dict.values():
        mistakes.sort()  # nlpaug keeps them in the order of a set, which differs by process
    return made


def _synonym() -> Any:
    """From WordNet, by part of speech. Raises ModelError if its data is missing: nlpaug would try to fetch it."""
    try:
        import nltk
        from nltk.corpus import wordnet

        wordnet.ensure_loaded()
        nltk.pos_tag(["word"])
    except (ImportError, LookupError) as error:
        raise ModelError(WORDNET) from error
    from nlpaug.augmenter.word import SynonymAug

    return SynonymAug(**_WORDS)


_WORDS: Mapping[str, Any] = {
    "aug_p": SHARE,
    "tokenizer": str.split,  # nlpaug's own splits "man's" into three
    "reverse_tokenizer": " ".join,
}

STEPS: Mapping[str, Callable[[], Any]] = {
    "deletion": cache(_deletion),
    "swap": cache(_swap),
    "synonym": cache(_synonym),
    "spelling": cache(_spelling),
}
"""By name, nlpaug's augmenter. Each is made once a process."""

POLICIES: Mapping[str, tuple[str, ...]] = {
    "words": ("deletion", "swap", "spelling"),
    "all": tuple(STEPS),
    **{name: (name,) for name in STEPS},
}
"""By name, the steps. Each version takes one, by its seed. "words" needs no data, "all" needs WordNet's."""


def check(policy: str) -> None:
    """Raises ModelError if a step of the policy lacks its data."""
    for step in POLICIES[policy]:
        STEPS[step]()


def augment(caption: str, policy: str, seed: int) -> tuple[str, tuple[str, ...]]:
    """One augmented caption, and the step that was applied; no step if it found nothing to change."""
    if not caption.strip():
        return caption, ()
    step = POLICIES[policy][seed % len(POLICIES[policy])]
    with _random_state(seed):
        (made,) = STEPS[step]().augment(caption)
    return (caption, ()) if made == " ".join(caption.split()) else (made, (step,))


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """nlpaug draws from the random state of the process, which is restored afterwards."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
