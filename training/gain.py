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
from pipeline.scorers.clip import ClipSpec
from pipeline.source import Source
from pipeline.stage import canonical_json, digest
from pipeline.storage import Storage
from pipeline.task import LEAST, Encoder, Network, Task
from pipeline.trials import FORMAT, GAIN, Progress, Trial, silent
from training import dual_encoder, evaluate, heldout, pool, probe, versions
from training.evaluate import Bootstrap, Interval, Measure
from training.experiment import CELLS, Cell, Experiment, Learner, measured
from training.features import Extractor
from training.heldout import HeldOut

if TYPE_CHECKING:
    from rich.console import Group


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

FURTHER = (
    Comparison("text - plain", ("filtered", "text"), ("filtered", False), "augmentation of captions alone", first=True),
    Comparison("both - plain", ("filtered", "both"), ("filtered", False), "augmentation of both by rules", first=True),
    Comparison(
        "both - image",
        ("filtered", "both"),
        ("filtered", True),
        "augmentation of both by rules, against pictures alone",
        first=True,
    ),
    Comparison(
        "guarded - both",
        ("filtered", "guarded"),
        ("filtered", "both"),
        "the guard, where both are augmented",
        first=True,
    ),
)
"""Of the filtered pairs, as far as task.budget.augmentations asks for them."""

INTERACTION = "interaction"
"""The name of this difference: what filtering adds to augmented pictures less what it adds to plain ones."""


def measure(
    source: Source,
    storage: Storage,
    manifest_id: str | None = None,
    progress: Progress = silent,
    recipe: str | None = None,
) -> dict[str, Any]:
    """The gain of the newest manifest, or of the one whose id begins with `manifest_id`, as JSON.

    What counts as kept is what was published, or what a named `recipe` keeps of the same pairs. Safe to run twice: a
    second time nothing is trained, and after a crash it goes on at the trial. Raises SourceError where the source has
    no task or test set, and CompareError for a comparison that would not be fair.
    """
    task, choice = asked(source), arms.Choice.open(storage, manifest_id, recipe)
    test = HeldOut.read(task.test, task) if task.test else None
    if test:
        check_test(test, task)
    extractors = _extractors(source, storage)
    maker = versions.Maker(storage, task.budget, _clip(source)) if task.budget.augmentations else None
    key = f"gains/{_digest(choice, task, test, extractors, maker)}.json"
    if not storage.done(key):
        known = pool.read(choice, task, extractors, test, progress)
        check_test(known.test, task)
        more = versions.read(choice, known, task, extractors, maker, progress) if maker else None
        learners = _learners(choice, task, extractors, known, more)
        trials = Experiment(source.name, choice, task, known, known.test, learners, more).run(storage, progress)
        made = summary(trials, measured(task, known.test), known) | {"published": choice.published}
        made["versions"] = {**more.counts, "says": versions.told(more.counts)} if more else None
        storage.put_if_absent(key, canonical_json(made))
    found: dict[str, Any] = json.loads(storage.fetch(key).read_bytes())
    return found


def summary(trials: Sequence[Trial], measure: Measure, known: pool.Pool) -> dict[str, Any]:
    """By learner, rows by cell and differences with intervals; by filter, what it adds for the first learner.

    Raises CompareError for what must not be compared.
    """
    by_name: dict[str, list[Trial]] = {}
    for each in trials:
        by_name.setdefault(each.setting.learner, []).append(each)
    for name, found in by_name.items():
        check_comparable(name, found)
    first, test = trials[0].setting, known.test
    seeds = len({each.setting.seed for each in trials})
    bootstrap = Bootstrap(measure, len(test.labels), seeds)
    return {
        "code": GAIN,
        "source": first.source,
        "manifest": first.manifest,
        "recipe": first.recipe,
        "kind": first.kind,
        "metrics": [[name, says] for name, says in measure.metrics.items()],
        "classes": {name: list(words) for name, words in first.classes.items()},
        "budget": {**first.budget, "seeds": seeds},
        "test": {
            "says": test.says,
            "pictures": len(test.labels),
            "captions": len(test.pairs.text) if test.pairs else 0,
            "ambiguous": test.ambiguous,
            "unlabelled": test.unlabelled,
            "digest": first.test,
        },
        "leak_rule": heldout.LEAK_RULE,
        "interval": f"{evaluate.LEVEL:.0%}, {evaluate.SAYS}",
        "learners": [_learner(found, bootstrap, first.recipe) for found in by_name.values()],
        "filters": _filters(by_name[first.learner], bootstrap, known.filters),
        "seconds": {name: round(sum(each.seconds for each in found), 1) for name, found in by_name.items()},
        "baseline": baseline(known, measure),
        "counts": dict(known.counts),
    }


def table(gain: Mapping[str, Any]) -> "Group":
    """The score that is compared, by arm and learner, and what made a difference, for rich's console."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    learners, (main, says) = gain["learners"], gain["metrics"][0]
    told = f"on {gain['test']['says']}, {gain['budget']['seeds']} seeds"
    shown = Table(title=f"{says[:1].upper()}{says[1:]} (sd) {told}", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("arm", "pictures"):
        shown.add_column(name, no_wrap=True)
    for name in ("pairs", *(each["name"] for each in learners)):
        shown.add_column(name, justify="right", no_wrap=True)
    for rows in zip(*(each["rows"] for each in learners), strict=True):
        kind = {True: "augmented", False: "plain"}.get(rows[0]["augmented"], rows[0]["augmented"])
        scores = [f"{row[f'{main}_mean']:.3f} ({row[f'{main}_sd']:.3f})".replace("(0.", "(.") for row in rows]
        shown.add_row(rows[0]["arm"], kind, f"{rows[0]['pairs_mean']:.0f}", *scores)
    base = gain["baseline"]
    shown.add_row(base["says"], "", "", *[f"{base[main]:.3f}       "] * len(learners), style="dim")
    lines = [
        Text(each["sentence"], style="" if each["clear"] else "dim")
        for learner in learners
        for each in learner["differences"]
        if each["first"]
    ]
    if gain["versions"]:
        lines.append(Text(gain["versions"]["says"]))
    filters = gain["filters"]
    lines.append(Text(f"What each filter adds; {filters['interval']}", style="italic"))
    lines += [Text(each["sentence"], style="" if each["clear"] else "dim") for each in filters["differences"]]
    lines += [Text(each["sentence"], style="dim") for each in filters["same"]]
    return Group(shown, Text(f"Differences in {says}; {gain['interval']}", style="italic"), *lines)


def check_comparable(name: str, trials: Sequence[Trial]) -> None:
    """Raises CompareError unless all cells have the same seeds, LEAST or more, and all else but the cell is equal.

    `name` is that of the learner whose trials they are.
    """
    for factor in ("budget", "encoder", "kind", "column", "classes", "test", "choice", "head", "code"):
        if len({canonical_json(getattr(each.setting, factor)) for each in trials}) > 1:
            raise CompareError(
                f"the trials of {name!r} differ in their {factor}: only arm, augmentation and seed may differ"
            )
    there = dict.fromkeys([*CELLS, *(each.setting.cell for each in trials)])
    seeds = {cell: [each.setting.seed for each in _of(cell, trials)] for cell in there}
    if len({tuple(found) for found in seeds.values()}) > 1:
        raise CompareError(f"the trials are not paired: {seeds}")
    if len(set(seeds[CELLS[0]])) < LEAST:
        raise CompareError(f"a comparison needs at least {LEAST} seeds: raise task.budget.seeds")


def check_test(test: HeldOut, task: Task) -> None:
    """Raises CompareError if some class has no held-out picture, or no caption could be wrong."""
    if test.pairs is not None and len(test.pairs.texts) < 2:
        raise CompareError(f"the {test.says} say the same: there is nothing to tell apart")
    if task.kind == "match" and test.pairs is not None and len(np.unique(test.pairs.match)) < 2:
        raise CompareError("of the held-out pairs all match, or none: task.test.column must tell both")
    for number, name in enumerate(task.classes):
        if number not in test.labels:
            raise CompareError(
                f"no held-out picture shows the class {name!r}: take it out of task.classes, or lower task.test.agree"
            )


def asked(source: Source) -> Task:
    """What a source wants to be measured on. Raises SourceError if it does not say."""
    if source.task is None:
        raise SourceError(f"{source.name}: there is no [task] to measure the gain on")
    if source.task.test is None and source.task.split is None:
        raise SourceError(f"{source.name}: [task.test] is missing: a gain needs held-out pictures (or [task.split])")
    if "guarded" in source.task.budget.augmentations and not _clip(source):
        raise SourceError(f"{source.name}: task.budget.augmentations: a guard needs a scorer of kind clip")
    return source.task


def _extractors(source: Source, storage: Storage) -> list[Extractor]:
    """One for each encoder: learners that share an encoder share its features."""
    task, encoders = asked(source), list[Encoder]()
    for learner in task.learners.values():
        if learner.encoder not in encoders:
            encoders.append(learner.encoder)
    return [Extractor(storage, encoder, source.decoder, task.budget) for encoder in encoders]


def _learners(
    choice: arms.Choice,
    task: Task,
    extractors: Sequence[Extractor],
    known: pool.Pool,
    more: versions.Versions | None,
) -> tuple[Learner, ...]:
    encoders = [extractor.encoder for extractor in extractors]
    made = []
    for name, each in task.learners.items():
        at, texts = encoders.index(each.encoder), None
        asked = [[text] for text in known.test.pairs.texts] if known.test.pairs else dual_encoder.prompts(task.classes)
        if each.head == "dual" and isinstance(each.encoder, Network):
            captions = versions.captions(choice, known.table["uid"])["caption"].to_pylist()
            texts = dual_encoder.Texts.read(each.encoder, captions, asked, more)
        made.append(Learner(name, each.head, extractors[at].identity, known.features[at], known.heldout[at], at, texts))
    return tuple(made)


def _clip(source: Source) -> ClipSpec | None:
    """The CLIP at hand: the first of the source's scorers that is one."""
    return next((spec for spec in source.scorers.values() if isinstance(spec, ClipSpec)), None)


def _digest(
    choice: arms.Choice,
    task: Task,
    test: HeldOut | None,
    extractors: Sequence[Extractor],
    maker: versions.Maker | None,
) -> str:
    classes = [[name, list(words)] for name, words in task.classes.items()]
    encoders = [extractor.encoder for extractor in extractors]
    learners = [
        [name, each.head, extractors[encoders.index(each.encoder)].identity] for name, each in task.learners.items()
    ]
    held = test.digest if test else task.split.model_dump() if task.split else None
    parts = [GAIN, FORMAT, probe.VERSION, dual_encoder.VERSION, choice.key, task.kind, task.column, classes]
    parts += [maker.made_by] if maker else []
    return digest([*parts, task.budget.model_dump(), learners, held])[:32]


def _learner(trials: Sequence[Trial], bootstrap: Bootstrap, recipe: str) -> dict[str, Any]:
    first = trials[0].setting
    cells = {cell: _of(cell, trials) for cell in (*CELLS, *(("filtered", how) for how in versions.HOW))}
    cells = {cell: found for cell, found in cells.items() if found}
    means = {cell: _mean(found, bootstrap) for cell, found in cells.items()}
    seeds = len(cells[CELLS[0]])
    differences = [
        _told(each.name, each.factors, each.first, evaluate.difference(means[each.better], means[each.worse]))
        | {"sentence": each.says.format(recipe=recipe)}
        for each in (*COMPARISONS, *FURTHER)
        if {each.better, each.worse} <= cells.keys()
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
        "rows": [_row(cell, _of(cell, trials)) for name in compared for cell in _cells(arms.without(name))],
        "differences": differences,
        "same": [_same(name, dropped) for name, dropped in filters.items() if name not in compared],
    }


def _cells(arm: str) -> tuple[Cell, Cell]:
    """An arm, and as many pairs taken blindly."""
    return (arm, False), (arms.as_many(arm), False)


def _same(name: str, dropped: pool.Dropped) -> dict[str, Any]:
    """A filter without which the same pairs would be kept: there is nothing to train."""
    says = f"adds nothing: other filters drop all that it drops, too (pairs that could be trained on: {dropped.all})"
    return {
        "filter": name,
        **dropped._asdict(),
        "sentence": f"{name} {says if dropped.all else 'adds nothing: it drops no pair that could be trained on'}",
    }


def _of(cell: Cell, trials: Sequence[Trial]) -> list[Trial]:
    return [each for each in trials if each.setting.cell == cell]


def _mean(trials: Sequence[Trial], bootstrap: Bootstrap) -> evaluate.Mean:
    return bootstrap.mean(np.array([each.predictions for each in trials]))


def _told(name: str, factors: int, first: bool, interval: Interval) -> dict[str, Any]:
    clear = interval.low > 0 or interval.high < 0
    return {"name": name, "factors": factors, "first": first, **asdict(interval), "clear": clear}


def _interval(each: Mapping[str, Any]) -> str:
    return f"{each['difference']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]"


def _row(cell: Cell, trials: Sequence[Trial]) -> dict[str, Any]:
    """Means over seeds; `curve` has the pictures seen, the mean score and its deviation, `cost` what a trial took."""
    row: dict[str, Any] = {"arm": cell[0], "augmented": cell[1], "seeds": len(trials)}
    row["pairs_mean"] = float(np.mean([each.pairs for each in trials]))
    for metric in trials[0].scores:
        row |= _spread(metric, [each.scores[metric] for each in trials])
    row["per_class_f1"] = {
        name: float(np.mean([each.per_class[name]["f1"] for each in trials])) for name in trials[0].per_class
    }
    row["curve"] = [
        {"images": looks[0].images, **_spread("score", [look.score for look in looks])}
        for looks in zip(*(each.curve for each in trials), strict=True)
    ]
    points, seconds = (
        float(np.mean([each.points for each in trials])),
        float(np.mean([each.seconds for each in trials])),
    )
    row["cost"] = {
        "images": trials[0].images,
        "seconds": seconds,
        "points": points,
        "seconds_per_point": seconds / points if points > 0 else None,
        "images_per_point": trials[0].images / points if points > 0 else None,
    }
    return row


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_mean": float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}


def baseline(known: pool.Pool, measure: Measure) -> dict[str, Any]:
    """What a learner that looks at no picture would score, and what that is called."""
    says, scores = measure.baseline(known.table["label"].to_numpy())
    return {"says": says, **scores}
