"""Augmentation of captions with nlpaug, by named policies. The same caption and seed always give the same version."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from pipeline.errors import ModelError

VERSION = 1
"""Raised whenever a policy of the same name would give other versions."""

SHARE = 0.1
"""Of the words is changed, one at least: as in Wei & Zou 2019 (EDA), where swap and deletion are from."""

WORDNET = (
    "synonyms need NLTK and its WordNet data: python -m pip install nltk && "
    "python -m nltk.downloader wordnet omw-1.4 averaged_perceptron_tagger_eng; or choose another caption_policy"
)


def _deletion() -> Any:
    from nlpaug.augmenter.word import RandomWordAug

    return RandomWordAug(action="delete", **_WORDS)


def _swap() -> Any:
    """Of neighbours."""
    from nlpaug.augmenter.word import RandomWordAug

    return RandomWordAug(action="swap", **_WORDS)


def _spelling() -> Any:
    """Mistakes that people made, from nlpaug's own list."""
    from nlpaug.augmenter.word import SpellingAug

    made = SpellingAug(include_reverse=False, **_WORDS)
    for mistakes in made.model.dict.values():
        mistakes.sort()  # it keeps them in a set's order, which every process has anew
    return made


def _synonym() -> Any:
    """From WordNet, by part of speech. Raises ModelError where its data is missing: nlpaug would try to fetch it."""
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
    "tokenizer": str.split,  # nlpaug's own tears "man's" into three
    "reverse_tokenizer": " ".join,
}

STEPS: Mapping[str, Callable[[], Any]] = {
    "deletion": cache(_deletion),
    "swap": cache(_swap),
    "synonym": cache(_synonym),
    "spelling": cache(_spelling),
}
"""Name -> nlpaug's augmenter. Each is made once a process."""

POLICIES: Mapping[str, tuple[str, ...]] = {
    "words": ("deletion", "swap", "spelling"),
    "all": tuple(STEPS),
    **{name: (name,) for name in STEPS},
}
"""Name -> the steps of which each version takes one, by its seed. "words" needs no data, "all" needs WordNet's."""


def check(policy: str) -> None:
    """Raises ModelError where a step of the policy cannot be had."""
    for step in POLICIES[policy]:
        STEPS[step]()


def version(caption: str, policy: str, seed: int) -> tuple[str, tuple[str, ...]]:
    """One augmented caption, and the step that was taken; none where it found nothing to change."""
    if not caption.strip():
        return caption, ()
    step = POLICIES[policy][seed % len(POLICIES[policy])]
    with _dice(seed):
        (made,) = STEPS[step]().augment(caption)
    return (caption, ()) if made == " ".join(caption.split()) else (made, (step,))


@contextmanager
def _dice(seed: int) -> Iterator[None]:
    """nlpaug draws from the generator that the whole process shares: it is put back as it was."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
