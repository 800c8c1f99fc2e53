"""What judges answered and what that took, for a manifest's card: pairs without an answer by cause, tokens, money."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from pipeline.judging.asking import OVER_BUDGET
from pipeline.schema import score_column
from pipeline.scorers.judge import CAUSE, JudgeSpec
from pipeline.scorers.spec import Spec
from pipeline.store import duck


def count(con: duckdb.DuckDBPyConnection, scorers: Mapping[str, Spec], rows: Sequence[Path]) -> dict[str, Any]:
    """By judge the downloaded pairs without an answer by cause, and the tokens and money spent on this machine so far.

    Empty without a judge.
    """
    judges = {name: spec for name, spec in scorers.items() if isinstance(spec, JudgeSpec)}
    return {"judged": {name: _count(con, name, spec, rows) for name, spec in judges.items()}} if judges else {}


def remarks(card: Mapping[str, Any]) -> list[str]:
    """Lines for judges with pairs that have no answer, and for those that cost money."""
    return [line for name, found in card.get("judged", {}).items() for line in _lines(name, found)]


def _count(con: duckdb.DuckDBPyConnection, name: str, spec: JudgeSpec, rows: Sequence[Path]) -> dict[str, Any]:
    cause = duck.identifier(score_column(name, CAUSE))
    counted = con.execute(
        f"SELECT {cause}, count(*) FROM {duck.parquet(rows)} WHERE {cause} IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    prompt, reply = tokens = spec.replies.tokens()
    return {
        "attempt": spec.attempt,
        "causes": dict(counted),
        "tokens": {"prompt": prompt, "reply": reply},
        "spent": round(spec.price.of(tokens), 6),
    }


def _lines(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    if causes := found["causes"]:
        each, pairs = ", ".join(f"{cause} {pairs:,}" for cause, pairs in causes.items()), sum(causes.values())
        budget = "raise budget and " if OVER_BUDGET in causes else ""
        yield (
            f"{name}: {pairs:,} {'pair has' if pairs == 1 else 'pairs have'} no answer ({each}): to ask about "
            f"{'it' if pairs == 1 else 'them'} again, {budget}set attempt = {found['attempt'] + 1} in [scorers.{name}]"
        )
    if found["spent"]:
        tokens = found["tokens"]
        yield (
            f"{name}: {tokens['prompt']:,} tokens of prompts and {tokens['reply']:,} of replies so far, "
            f"{found['spent']:,.4g} by its price"
        )
