"""What a manifest was worth: the same learner on what was kept, on everything, and on as much taken blindly."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import CompareError, SourceError
from pipeline.manifest import Manifest
from pipeline.source import Source
from pipeline.stage import canonical_json, digest
from pipeline.storage import Storage
from pipeline.task import Task, TestSet
from pipeline.trials import Progress, Trial, silent
from training import evaluate, heldout, pool, probe
from training.evaluate import Bootstrap
from training.experiment import CELLS, Experiment
from training.features import Extractor
from training.heldout import HeldOut

if TYPE_CHECKING:
    from rich.console import Group

CODE = 1
"""Raised whenever the same trials would be summed up otherwise."""

METRICS = ("f1_macro", "f1_micro", "precision_macro", "recall_macro", "accuracy")

Cell = tuple[str, bool]


@dataclass(frozen=True)
class Comparison:
    """Two cells that differ in one factor; the one that differs in two is what all of it was worth together."""

    name: str
    better: Cell
    worse: Cell
    says: str

    @property
    def factors(self) -> int:
        """How many factors differ."""
        return sum(a != b for a, b in zip(self.better, self.worse, strict=True))


COMPARISONS = (
    Comparison("filtered - raw", ("filtered", False), ("raw", False), "filtering by {recipe}"),
    Comparison(
        "filtered - random", ("filtered", False), ("random", False), "filtering by {recipe}, against as many at random"
    ),
    Comparison("filtered - raw, augmented", ("filtered", True), ("raw", True), "filtering by {recipe}, both augmented"),
    Comparison(
        "filtered - random, augmented",
        ("filtered", True),
        ("random", True),
        "filtering by {recipe}, against as many at random, both augmented",
    ),
    *(
        Comparison(f"augmented - plain, {arm}", (arm, True), (arm, False), f"augmentation of the {arm} pairs")
        for arm in ("raw", "filtered", "random")
    ),
    Comparison(
        "filtered and augmented - raw",
        ("filtered", True),
        ("raw", False),
        "filtering by {recipe} and augmentation together",
    ),
)


def measure(
    source: Source, storage: Storage, manifest_id: str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """The gain of the newest manifest, or of the one whose id begins with `manifest_id`, as JSON.

    Safe to run twice: a second time nothing is trained, and after a crash it goes on at the trial. Raises SourceError
    where the source has no task or test set, and CompareError for a comparison that would not be fair.
    """
    task, test_set = _task(source)
    manifest = Manifest.open(storage, manifest_id)
    test = HeldOut.read(test_set, task.classes)
    check_test(test, list(task.classes))
    extractor = Extractor(storage, task.encoder, task.budget)
    key = f"gains/{_digest(manifest, task, test, extractor)}.json"
    if not storage.done(key):
        known = pool.read(manifest, task.classes, extractor, test, progress)
        experiment = Experiment(
            source.name, manifest.id, task, extractor.identity, known, test, extractor.heldout(test)
        )
        made = summary(experiment.run(storage, progress), test, manifest.document["recipe"]["name"])
        made["baseline"] = _baseline(known, test, list(task.classes))
        made["counts"] = dict(known.counts)
        storage.put_if_absent(key, canonical_json(made))
    found: dict[str, Any] = json.loads(storage.fetch(key).read_bytes())
    return found


def summary(trials: Sequence[Trial], test: HeldOut, recipe: str) -> dict[str, Any]:
    """Rows by cell and differences with intervals. Raises CompareError for trials that must not be compared."""
    check_comparable(trials)
    first = trials[0].setting
    cells = {cell: [each for each in trials if (each.setting.arm, each.setting.augmented) == cell] for cell in CELLS}
    seeds = len(cells[CELLS[0]])
    bootstrap = Bootstrap(test.labels, len(first.classes), seeds)
    return {
        "code": CODE,
        "source": first.source,
        "manifest": first.manifest,
        "recipe": recipe,
        "learner": first.learner,
        "classes": {name: list(words) for name, words in first.classes.items()},
        "budget": {**first.budget, "seeds": seeds},
        "encoder": first.encoder,
        "test": {
            "pictures": len(test.paths),
            "ambiguous": test.ambiguous,
            "unlabelled": test.unlabelled,
            "digest": first.test,
        },
        "leak_rule": heldout.LEAK_RULE,
        "interval": evaluate.SAYS,
        "rows": [_row(cell, found) for cell, found in cells.items()],
        "differences": [_difference(each, cells, bootstrap, recipe) for each in COMPARISONS],
        "seconds": round(sum(each.seconds for each in trials), 1),
    }


def table(gain: Mapping[str, Any]) -> "Group":
    """Scores by arm, and what made a difference, for rich's console."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = f"Scores on {gain['test']['pictures']} held-out pictures, {gain['budget']['seeds']} seeds"
    arms = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("arm", "pictures", "pairs", "macro-F1", "sd", "prec.", "recall", "acc."):
        arms.add_column(name, justify="left" if name in ("arm", "pictures") else "right", no_wrap=True)
    for row in gain["rows"]:
        shown = [row["f1_macro_mean"], row["f1_macro_sd"]]
        shown += [row[f"{metric}_mean"] for metric in ("precision_macro", "recall_macro", "accuracy")]
        kind = "augmented" if row["augmented"] else "plain"
        arms.add_row(row["arm"], kind, f"{row['pairs_mean']:.0f}", *(f"{value:.3f}" for value in shown))
    base = gain["baseline"]
    shown = [base[metric] for metric in ("precision_macro", "recall_macro", "accuracy")]
    always = (base["class"], "always", "", f"{base['f1_macro']:.3f}", "", *(f"{value:.3f}" for value in shown))
    arms.add_row(*always, style="dim")
    lines = [Text(each["sentence"], style="" if each["clear"] else "dim") for each in gain["differences"]]
    return Group(arms, Text(f"Difference in macro-F1 ({gain['interval']})", style="italic"), *lines)


def check_comparable(trials: Sequence[Trial]) -> None:
    """Raises CompareError unless all cells have the same two or more seeds, and all else but the cell is equal."""
    for factor in ("budget", "encoder", "classes", "test", "manifest", "learner", "code"):
        if len({canonical_json(getattr(each.setting, factor)) for each in trials}) > 1:
            raise CompareError(f"the trials differ in their {factor}: only arm, augmentation and seed may differ")
    seeds = {
        cell: [each.setting.seed for each in trials if (each.setting.arm, each.setting.augmented) == cell]
        for cell in CELLS
    }
    if len({tuple(found) for found in seeds.values()}) > 1:
        raise CompareError(f"the trials are not paired: {seeds}")
    if len(set(seeds[CELLS[0]])) < 2:
        raise CompareError("a comparison needs at least 2 seeds: raise task.budget.seeds")


def check_test(test: HeldOut, classes: Sequence[str]) -> None:
    """Raises CompareError if some class has no held-out picture."""
    for number, name in enumerate(classes):
        if number not in test.labels:
            raise CompareError(
                f"no held-out picture shows the class {name!r}: take it out of task.classes, or lower task.test.agree"
            )


def _task(source: Source) -> tuple[Task, TestSet]:
    if source.task is None:
        raise SourceError(f"{source.name}: there is no [task] to measure the gain on")
    if source.task.test is None:
        raise SourceError(f"{source.name}: [task.test] is missing: a gain needs held-out pictures")
    return source.task, source.task.test


def _digest(manifest: Manifest, task: Task, test: HeldOut, extractor: Extractor) -> str:
    classes = [[name, list(words)] for name, words in task.classes.items()]
    parts = [CODE, probe.VERSION, manifest.id, classes, task.budget.model_dump(), extractor.identity, test.digest]
    return digest(parts)[:32]


def _row(cell: Cell, trials: Sequence[Trial]) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": cell[0], "augmented": cell[1], "seeds": len(trials)}
    row["pairs_mean"] = float(np.mean([each.pairs for each in trials]))
    for metric in METRICS:
        values = [getattr(each, metric) for each in trials]
        row |= {f"{metric}_mean": float(np.mean(values)), f"{metric}_sd": float(np.std(values, ddof=1))}
    row["per_class_f1"] = {
        name: float(np.mean([each.per_class[name]["f1"] for each in trials])) for name in trials[0].per_class
    }
    return row


def _difference(
    comparison: Comparison, cells: Mapping[Cell, Sequence[Trial]], bootstrap: Bootstrap, recipe: str
) -> dict[str, Any]:
    better, worse = (
        np.array([each.predictions for each in cells[cell]], np.int16) for cell in (comparison.better, comparison.worse)
    )
    interval = bootstrap.interval(better, worse)
    bounds = f"[{interval.low:+.3f}, {interval.high:+.3f}]"
    says = comparison.says.format(recipe=recipe)
    return {
        "name": comparison.name,
        "metric": "f1_macro",
        "factors": comparison.factors,
        **asdict(interval),
        "clear": interval.low > 0 or interval.high < 0,
        "sentence": f"{says}: {interval.difference:+.3f} {bounds}, {len(better)} seeds",
    }


def _baseline(known: pool.Pool, test: HeldOut, classes: list[str]) -> dict[str, Any]:
    """What always saying the commonest training label would score."""
    commonest = int(np.bincount(known.table["label"].to_numpy()).argmax())
    scores = evaluate.scores(test.labels, np.full_like(test.labels, commonest), classes)
    return {"class": classes[commonest], **{metric: scores[metric] for metric in METRICS}}
