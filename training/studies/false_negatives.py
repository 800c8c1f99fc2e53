"""How many negatives of a batch have the text of a pair itself, and a warning where these are all of them."""

import numpy as np

from pipeline.settings.model import Model
from training.data.order import Rows
from training.studies.corpus import Corpus


def expected(pairs: Corpus, rows: Rows, batch: int) -> float:
    """The mean number of other pictures in a random batch of the rows whose text is that of a pair, for each pair.

    With C texts of equally many pictures it is near (batch - 1) / C. Rows of the same picture do not count.
    """
    texts, pictures = pairs.texts.place[rows, 0], pairs.pictures[rows]
    both = np.stack([texts, pictures], axis=1)
    same_text, same_pair = (np.unique(each, axis=0, return_counts=True)[1] for each in (texts, both))
    total = len(rows)
    share = (np.square(same_text).sum() - np.square(same_pair).sum()) / (total * max(1, total - 1))
    return float((min(batch, total) - 1) * share)


def line(pairs: Corpus, rows: Rows, settings: Model) -> str | None:
    """A warning that gives the number, or None: where such pairs match each other, or are fewer than 1 in a batch.

    Pairs that all have one text are a warning with matches as well. The objective soft-targets has no negatives.
    """
    if settings.objective == "soft-targets":
        return None
    number, match = expected(pairs, rows, settings.batch), settings.same_text == "match"
    if len(np.unique(pairs.texts.place[rows, 0])) == 1:
        if match or settings.objective == "softmax":
            return "all pairs have the same text, so that training has nothing to tell apart: train on more texts"
        return (
            f"all pairs have the same text: the {number:.4g} negatives of a pair in a batch are false, and the model "
            'unlearns the text; train on more texts, or set same_text = "match"'
        )
    if match or number * settings.batch < 1:
        return None
    return (
        f"of the {settings.batch - 1} negatives of a pair in a batch, {number:.3g} have its own text in the mean; "
        'same_text = "match" makes them matches'
    )
