"""A recipe as text: the number in a filter's SQL that a slider moves, and TOML for a source file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filters.core import Recipe
from pipeline.filtering.thresholds import Comparison
from pipeline.manifest.document import selection_json


def handle(sql: str) -> dict[str, Any] | None:
    """The place of the number in a filter's SQL, so that a slider can move it; None unless there is just one."""
    plain, quantile = Comparison.of(sql), Comparison.of_quantile(sql)
    comparison = plain or quantile
    if comparison is None:
        return None
    return asdict(comparison) | {"share": plain is None, "keeps_high": comparison.keeps_high}


def toml(recipe: Recipe) -> str:
    """The recipe as tables of a source file."""
    lines = [
        f"# recipe {recipe.name}: in place of `recipe`, all [[filters]], [distinct] and [selection] of the source file",
        "",
    ]
    if not recipe.filters:
        lines += ["filters = []", ""]
    for each in recipe.filters:
        lines += ["[[filters]]", f"name = {_quoted(each.name)}", f"sql = {_quoted(each.sql)}"]
        if each.why:
            lines.append(f"why = {_quoted(each.why)}")
        lines.append("")
    if recipe.distinct:
        lines += [
            "[distinct]",
            f"radius = {recipe.distinct.radius}",
            f"best_by = {_quoted(recipe.distinct.best_by)}",
            f"of = {_quoted(recipe.distinct.of)}",
            "",
        ]
    if recipe.selection:
        settings = {key: value for key, value in selection_json(recipe.selection).items() if value is not None}
        lines += ["[selection]", *(f"{key} = {_value(value)}" for key, value in settings.items()), ""]
    return "\n".join(lines)


def _value(value: str | float) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)


def near_table(name: str, of: str, centres: Path) -> str:
    """The scorer that computes the similarity to centres of a region, as a table of a source file."""
    return "\n".join(
        (f"[scorers.{name}]", 'kind = "norm_sim"', f"of = {_quoted(of)}", f"targets = {_quoted(centres.name)}", "")
    )


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
