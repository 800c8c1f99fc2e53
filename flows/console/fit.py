"""One trained model: its losses, its ranks on the test set, and the lines of a source file that use it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flows.console import ranks
from flows.console.layout import Column, Table

AT = (1, 5, 10)

SHOWN = 12
"""The most epochs of a table: of more, evenly chosen ones and the last."""


def summary(record: Mapping[str, Any]) -> Group:
    """What was trained on, the losses by epoch, the ranks and the cost. `record` is the content of training.json."""
    parts: list[RenderableType] = [Text(_pairs(record)), _losses(record["epochs"])]
    if record["scores"] is not None:
        parts += _scores(record["fold"], record["scores"])
    if record["inexact"]:
        parts.append(Text(f"warning: {record['inexact']}"))
    return Group(*parts, Text(_cost(record["cost"]), "dim"))


def toml(name: str, folder: Path, record: Mapping[str, Any]) -> Iterator[str]:
    """The lines that name the model as a scorer, or why they cannot."""
    if record["not_open_clip"]:
        yield f"open_clip cannot hold this model, so it is no scorer: {record['not_open_clip']}"
        return
    if record["fold"] is None:
        yield f'[scorers.{name}]\nkind = "clip"\nmodel = "local-dir:{folder}"'
    else:
        yield f'[scorers.learned]\nkind = "cross_fitted"\nfolder = "{folder}"'


def _pairs(record: Mapping[str, Any]) -> str:
    counts, cut = record["counts"], record["captions_cut"]
    leaked = counts["leaked_exact"] + counts["leaked_near"]
    what = "all pairs" if record["everything"] else f"what {record['recipe']} keeps"
    fold = f"Fold {record['fold']['number']} of {record['fold']['of']}: " if record["fold"] else ""
    return (
        f"{fold}{record['pairs']:,} pairs of {record['pictures']:,} pictures ({what}), {record['validation_pairs']:,} "
        f"to validate, {leaked:,} left out because they show the test set, {cut:,} captions cut"
    )


def _losses(epochs: list[dict[str, Any]]) -> Table:
    table = Table((Column("epoch"), Column("steps"), Column("train loss"), Column("validation loss")), "Losses")
    every = -(-len(epochs) // SHOWN)
    for each in epochs:
        if each["number"] % every == 0 or each is epochs[-1]:
            validation = each["validation_loss"]
            shown = "" if validation is None else f"{validation:.4f}"
            table.add(str(each["number"]), f"{each['step']:,}", f"{each['train_loss']:.4f}", shown)
    return table


def _scores(fold: Mapping[str, Any] | None, scores: Mapping[str, Any]) -> Iterator[RenderableType]:
    gallery = scores["gallery"]
    yield Text(
        f"Ranked on {gallery['pictures']:,} test pictures with {gallery['captions']:,} captions, "
        f"{gallery['captions_cut']:,} of them cut; intervals of 95 % over the pictures"
    )
    yield from ranks.tables([(f"fold {fold['number']}" if fold else "model", scores["directions"])], "")
    yield _people(scores["people"])


def _people(people: Mapping[str, Any]) -> Table:
    columns = (Column("captions", "name"), Column("queries"), *(Column(f"Rank@{k}") for k in AT), Column("median rank"))
    table = Table(columns, "Text to image, by whether a caption names a person")
    for name, says in (("people", "name a person"), ("others", "do not")):
        found = people[name]
        if found["queries"]:
            shares = (f"{found[f't2i_r{k}']:.3f}" for k in AT)
            table.add(says, f"{found['queries']:,}", *shares, f"{found['t2i_median']:,}")
    return table


def _cost(cost: Mapping[str, Any]) -> str:
    return (
        f"{cost['steps']:,} steps of {cost['batch']:,} in {cost['seconds']:,.0f} s, {cost['images_per_second']:,.0f} "
        f"pictures/s, {cost['validation_seconds']:,.0f} s of validation, {cost['peak_memory_mb']:,} MiB, "
        f"{cost['device']}; {cost['parameters'] / 1e6:,.1f} M parameters, {cost['trained'] / 1e6:,.2f} M of them "
        f"trained, {cost['image_flops'] / 1e9:,.2f} GFLOP for a picture"
    )
