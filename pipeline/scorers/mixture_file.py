"""The file beside the scores of a mix: its weights, and what it is worth against its columns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.mixing.comparison import Comparison
from pipeline.mixing.learn import Mixture
from pipeline.mixing.spread import spread

NAME = "mixture.json"


def write(
    folder: Path, columns: Sequence[str], mixture: Mixture, comparison: Comparison, facts: Mapping[str, Any]
) -> None:
    """Write the weight of each column with its interval over refits, the comparison, and `facts` of the settings."""
    folds, refits, _ = mixture.weights.shape
    alone = [
        {"column": name, "loss": asdict(loss), "chosen": chosen}
        for name, loss, chosen in zip(columns, comparison.columns, comparison.chosen, strict=True)
    ]
    _put(folder, {
        **facts,
        "folds": folds,
        "refits": refits,
        "weights": {name: asdict(spread(mixture.weights[..., at])) for at, name in enumerate(columns)},
        "losses": {name: asdict(getattr(comparison, name)) for name in ("mixed", "best", "random")},
        "alone": alone,
        "gain": asdict(comparison.gain),
        "better": comparison.better,
    })  # fmt: skip


def write_empty(folder: Path) -> None:
    """The file of a pool without a pair that has all columns."""
    _put(folder, {})


def remarks(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """By scorer its file, in words: a line with the weights, one with the comparison, one with each column alone."""
    return [f"{name}: {line}" for name, each in found.items() if each for line in _lines(each)]


def _lines(mix: Mapping[str, Any]) -> list[str]:
    weights = ", ".join(f"{name} {_signed(each)}" for name, each in mix["weights"].items())
    learned = (
        f"learned by {mix['method']} for {mix['reference']:,} reference pairs from {mix['pairs']:,} pairs of the pool; "
        f"weights, with intervals over {mix['refits']} refits of {mix['folds']} folds: {weights}"
    )
    losses = {name: each["mean"] for name, each in mix["losses"].items()}
    best = max(mix["alone"], key=lambda each: each["chosen"])["column"]
    gain = mix["gain"]
    verdict = f"{'better' if mix['better'] else 'no better'} than the best single column, mostly {best}"
    if not mix["better"]:
        helps = losses["best"] < losses["random"]
        verdict += ": use that alone" if helps else ", which is no better than a random subset: use neither"
    compared = (
        f"the mix is {verdict}; with {mix['keep']:.0%} of the pool kept, the loss of held-out reference pairs is "
        f"{losses['mixed']:.4f} by the mix, {losses['best']:.4f} by that column (chosen on the same data), "
        f"{losses['random']:.4f} at random; the mix is lower by {_signed(gain, 4)}"
    )
    alone = ", ".join(f"{each['column']} {each['loss']['mean']:.4f}" for each in mix["alone"])
    return [learned, compared, f"the loss by each column alone: {alone}"]


def _signed(each: Mapping[str, float], digits: int = 2) -> str:
    return f"{each['mean']:+.{digits}f} [{each['low']:+.{digits}f}, {each['high']:+.{digits}f}]"


def _put(folder: Path, content: Mapping[str, Any]) -> None:
    (folder / NAME).write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
