"""Rows of a list with a question and its answers: their caption is the question and the answer, so all scorers work."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.settings.pairs import Pairs


def answers_of(value: Any) -> tuple[str, ...]:
    """The answers in a column: a list of texts, a JSON list of them, or one answer as text. Blank ones are left out."""
    if value is None:
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            found = json.loads(value)
        except ValueError:
            found = value
        value = found if isinstance(found, list) else value
    several = value if isinstance(value, list | tuple) else [value]
    return tuple(text for each in several if each is not None and (text := str(each).strip()))


def agreed(answers: Sequence[str]) -> str | None:
    """The answer that most people gave, the first one of several; None of a question without an answer."""
    counts = Counter(each for each in answers if each.strip())
    return max(counts, key=lambda each: counts[each]) if counts else None


def captioned(batch: pa.RecordBatch, pairs: Pairs) -> pa.RecordBatch:
    """The rows of a list, whose `caption` is the question, with the answer added to it."""
    assert pairs.answer is not None
    answers = [agreed(answers_of(each)) or "" for each in batch[pairs.answer].to_pylist()]
    asked = zip(batch["caption"].to_pylist(), answers, strict=True)
    captions = pa.array([" ".join(filter(None, each)) for each in asked], pa.string())
    return batch.set_column(batch.schema.get_field_index("caption"), "caption", captions)
