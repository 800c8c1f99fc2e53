"""What a manifest was worth: the same learners on what was kept, on everything, and on as much taken blindly.

The learners are named beforehand, in the source file, and all of them are reported.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import arms
from pipeline.errors import CompareError, SourceError
from pipeline.manifest import Manifest
from pipeline.source import Source
from pipeline.stage import canonical_json, digest
from pipeline.storage import Storage
from pipeline.task import Encoder, Task, TestSet
from pipeline.trials import Progress, Trial, silent
from training import evaluate, heldout, pool, probe
from training.evaluate import Bootstrap, Interval
from training.experiment import CELLS, Experiment, Learner
from training.features import Extractor
from training.heldout import HeldOut

if TYPE_CHECKING:
    from rich.console import Group

CODE = 5
"""Raised whenever the same trials would be summed up otherwise."""

METRICS = ("f1_macro", "f1_micro", "precision_macro", "recall_macro", "accuracy")

Cell = tuple[str, bool]


@dataclass(frozen=True)
class Comparison:
    """Two cells that differ in one factor; the one that differs in two is what all of it was worth together.

    The console shows those that are `first`; the rest is in the report.
    """

    name: str
    better: Cell
    worse: Cell
    says: str
    first: bool = False

    @property
    def factors(self) -> int:
        """How many factors differ."""
        return sum(a != b for a, b in zip(self.better, self.worse, strict=True))


COMPARISONS = (
    Comparison("filtered - raw", ("filtered", False), ("raw", False), "filtering by {recipe}", first=True),
    Comparison(
        "filtered - random",
        ("filtered", False),
        ("random", False),
        "filtering by {recipe}, against as many at random",
        first=True,
    ),
    Comparison("filtered - raw, augmented", ("filtered", True), ("raw", True), "filtering by {recipe}, both augmented"),
    Comparison(
        "filtered - random, augmented",
        ("filtered", True),
        ("random", True),
        "filtering by {recipe}, against as many at random, both augmented",
    ),
    *(
        Comparison(
            f"augmented - plain, {arm}",
            (arm, True),
            (arm, False),
            f"augmentation of the {arm} pairs",
            first=arm == "filtered",
        )
        for arm in ("raw", "filtered", "random")
    ),
    Comparison(
        "filtered and augmented - raw",
        ("filtered", True),
        ("raw", False),
        "filtering by {recipe} and augmentation together",
    ),
)

INTERACTION = "interaction"
"""The name of this difference: what filtering adds to augmented pictures less what it adds to plain ones."""


def measure(
    source: Source, storage: Storage, manifest_id: str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """The gain of the newest manifest, or of the one whose id begins with `manifest_id`, as JSON.

    Safe to run twice: a second time nothing is trained, and after a crash it goes on at the trial. Raises SourceError
    where the source has no task or test set, and CompareError for a comparison that would not be fair.
    """
    task, test_set = asked(source)
    manifest = Manifest.open(storage, manifest_id)
    test = HeldOut.read(test_set, task.classes)
    check_test(test, list(task.classes))
    extractors = _extractors(storage, task)
    key = f"gains/{_digest(manifest, task, test, extractors)}.json"
    if not storage.done(key):
        known = pool.read(manifest, task.classes, extractors, test, progress)
        learners = _learners(task, extractors, known)
        trials = Experiment(source.name, manifest.id, task, known, test, learners).run(storage, progress)
        made = summary(trials, test, manifest.document["recipe"]["name"], known.filters)
        made["baseline"] = baseline(known, test, list(task.classes))
        made["counts"] = dict(known.counts)
        storage.put_if_absent(key, canonical_json(made))
    found: dict[str, Any] = json.loads(storage.fetch(key).read_bytes())
    return found


def summary(trials: Sequence[Trial], test: HeldOut, recipe: str, filters: Mapping[str, pool.Dropped]) -> dict[str, Any]:
    """By learner, rows by cell and differences with intervals; by filter, what it adds for the first learner.

    Raises CompareError for what must not be compared.
    """
    by_name: dict[str, list[Trial]] = {}
    for each in trials:
        by_name.setdefault(each.setting.learner, []).append(each)
    for name, found in by_name.items():
        check_comparable(name, found)
    first = trials[0].setting
    seeds = len({each.setting.seed for each in trials})
    bootstrap = Bootstrap(test.labels, len(first.classes), seeds)
    return {
        "code": CODE,
        "source": first.source,
        "manifest": first.manifest,
        "recipe": recipe,
        "classes": {name: list(words) for name, words in first.classes.items()},
        "budget": {**first.budget, "seeds": seeds},
        "test": {
            "pictures": len(test.paths),
            "ambiguous": test.ambiguous,
            "unlabelled": test.unlabelled,
            "digest": first.test,
        },
        "leak_rule": heldout.LEAK_RULE,
        "interval": f"{evaluate.LEVEL:.0%}, {evaluate.SAYS}",
        "learners": [_learner(found, bootstrap, recipe) for found in by_name.values()],
        "filters": _filters(by_name[first.learner], bootstrap, filters),
        "seconds": {name: round(sum(each.seconds for each in found), 1) for name, found in by_name.items()},
    }


def table(gain: Mapping[str, Any]) -> "Group":
    """Macro-F1 by arm and learner, and what made a difference, for rich's console."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    learners = gain["learners"]
    title = f"Macro-F1 (sd) on {gain['test']['pictures']} held-out pictures, {gain['budget']['seeds']} seeds"
    shown = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("arm", "pictures"):
        shown.add_column(name, no_wrap=True)
    for name in ("pairs", *(each["name"] for each in learners)):
        shown.add_column(name, justify="right", no_wrap=True)
    for rows in zip(*(each["rows"] for each in learners), strict=True):
        kind = "augmented" if rows[0]["augmented"] else "plain"
        scores = [f"{row['f1_macro_mean']:.3f} ({row['f1_macro_sd']:.3f})" for row in rows]
        shown.add_row(rows[0]["arm"], kind, f"{rows[0]['pairs_mean']:.0f}", *scores)
    base = gain["baseline"]
    shown.add_row(f"always {base['class']}", "", "", *[f"{base['f1_macro']:.3f}        "] * len(learners), style="dim")
    lines = [
        Text(each["sentence"], style="" if each["clear"] else "dim")
        for learner in learners
        for each in learner["differences"]
        if each["first"]
    ]
    filters = gain["filters"]
    lines.append(Text(f"What each filter adds; {filters['interval']}", style="italic"))
    lines += [Text(each["sentence"], style="" if each["clear"] else "dim") for each in filters["differences"]]
    lines += [Text(each["sentence"], style="dim") for each in filters["same"]]
    return Group(shown, Text(f"Differences in macro-F1; {gain['interval']}", style="italic"), *lines)


def check_comparable(name: str, trials: Sequence[Trial]) -> None:
    """Raises CompareError unless all cells have the same two or more seeds, and all else but the cell is equal.

    `name` is that of the learner whose trials they are.
    """
    for factor in ("budget", "encoder", "classes", "test", "manifest", "head", "code"):
        if len({canonical_json(getattr(each.setting, factor)) for each in trials}) > 1:
            raise CompareError(
                f"the trials of {name!r} differ in their {factor}: only arm, augmentation and seed may differ"
            )
    there = dict.fromkeys([*CELLS, *((each.setting.arm, each.setting.augmented) for each in trials)])
    seeds = {cell: [each.setting.seed for each in _of(cell, trials)] for cell in there}
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


def asked(source: Source) -> tuple[Task, TestSet]:
    """What a source wants to be measured on. Raises SourceError if it does not say."""
    if source.task is None:
        raise SourceError(f"{source.name}: there is no [task] to measure the gain on")
    if source.task.test is None:
        raise SourceError(f"{source.name}: [task.test] is missing: a gain needs held-out pictures")
    return source.task, source.task.test


def _extractors(storage: Storage, task: Task) -> list[Extractor]:
    """One for each encoder: learners that share an encoder share its features."""
    encoders: list[Encoder] = []
    for learner in task.learners.values():
        if learner.encoder not in encoders:
            encoders.append(learner.encoder)
    return [Extractor(storage, encoder, task.budget) for encoder in encoders]


def _learners(task: Task, extractors: Sequence[Extractor], known: pool.Pool) -> tuple[Learner, ...]:
    encoders = [extractor.encoder for extractor in extractors]
    found = [(name, each.head, encoders.index(each.encoder)) for name, each in task.learners.items()]
    return tuple(
        Learner(name, head, extractors[at].identity, known.features[at], known.heldout[at]) for name, head, at in found
    )


def _digest(manifest: Manifest, task: Task, test: HeldOut, extractors: Sequence[Extractor]) -> str:
    classes = [[name, list(words)] for name, words in task.classes.items()]
    encoders = [extractor.encoder for extractor in extractors]
    learners = [
        [name, each.head, extractors[encoders.index(each.encoder)].identity] for name, each in task.learners.items()
    ]
    parts = [CODE, probe.VERSION, manifest.id, classes, task.budget.model_dump(), learners, test.digest]
    return digest(parts)[:32]


def _learner(trials: Sequence[Trial], bootstrap: Bootstrap, recipe: str) -> dict[str, Any]:
    first = trials[0].setting
    cells = {cell: _of(cell, trials) for cell in CELLS}
    means = {cell: _mean(found, bootstrap) for cell, found in cells.items()}
    seeds = len(cells[CELLS[0]])
    differences = [
        _told(each.name, each.factors, each.first, evaluate.difference(means[each.better], means[each.worse]))
        | {"sentence": each.says.format(recipe=recipe)}
        for each in COMPARISONS
    ]
    interaction = evaluate.interaction(
        both=means["filtered", True],
        first=means["filtered", False],
        second=means["raw", True],
        neither=means["raw", False],
    )
    differences.append(
        _told(INTERACTION, 2, True, interaction) | {"sentence": "interaction of filtering and augmentation"}
    )
    for each in differences:
        each["sentence"] = f"{first.learner}, {each['sentence']}: {_interval(each)}, {seeds} seeds"
    return {
        "name": first.learner,
        "head": first.head,
        "encoder": first.encoder,
        "rows": [_row(cell, found) for cell, found in cells.items()],
        "differences": differences,
    }


def _filters(trials: Sequence[Trial], bootstrap: Bootstrap, filters: Mapping[str, pool.Dropped]) -> dict[str, Any]:
    """What each filter adds: all of them less all but this one, of one learner; intervals widened for their number."""
    learner = trials[0].setting.learner
    whole = _of(("filtered", False), trials)
    compared = {name: found for name in filters if (found := _of((arms.without(name), False), trials))}
    level = evaluate.corrected(len(compared))
    differences = []
    for name, found in compared.items():
        interval = evaluate.difference(_mean(whole, bootstrap), _mean(found, bootstrap), level)
        told = _told(f"filtered - {arms.without(name)}", 1, True, interval) | {
            "filter": name,
            **filters[name]._asdict(),
        }
        adds = ("adds" if interval.low > 0 else "does harm:") if told["clear"] else "adds nothing that shows:"
        differences.append(told | {"sentence": f"{learner}, {name} {adds} {_interval(told)}, {len(found)} seeds"})
    together = f", so that {evaluate.LEVEL:.0%} hold for all {len(compared)} together" if len(compared) > 1 else ""
    return {
        "learner": learner,
        "interval": f"{level:.1%} each{together}; {evaluate.SAYS}",
        "rows": [_row((arms.without(name), False), found) for name, found in compared.items()],
        "differences": differences,
        "same": [_same(name, dropped) for name, dropped in filters.items() if name not in compared],
    }


def _same(name: str, dropped: pool.Dropped) -> dict[str, Any]:
    """A filter without which the same pairs would be kept: there is nothing to train."""
    says = f"adds nothing: other filters drop all that it drops, too (pairs that could be trained on: {dropped.all})"
    return {
        "filter": name,
        **dropped._asdict(),
        "sentence": f"{name} {says if dropped.all else 'adds nothing: it drops no pair that could be trained on'}",
    }


def _of(cell: Cell, trials: Sequence[Trial]) -> list[Trial]:
    return [each for each in trials if (each.setting.arm, each.setting.augmented) == cell]


def _mean(trials: Sequence[Trial], bootstrap: Bootstrap) -> evaluate.Mean:
    return bootstrap.mean(np.array([each.predictions for each in trials], np.int16))


def _told(name: str, factors: int, first: bool, interval: Interval) -> dict[str, Any]:
    clear = interval.low > 0 or interval.high < 0
    return {"name": name, "metric": "f1_macro", "factors": factors, "first": first, **asdict(interval), "clear": clear}


def _interval(each: Mapping[str, Any]) -> str:
    return f"{each['difference']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]"


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


def baseline(known: pool.Pool, test: HeldOut, classes: list[str]) -> dict[str, Any]:
    """What always saying the commonest training label would score."""
    commonest = int(np.bincount(known.table["label"].to_numpy()).argmax())
    scores = evaluate.scores(test.labels, np.full_like(test.labels, commonest), classes)
    return {"class": classes[commonest], **{metric: scores[metric] for metric in METRICS}}
