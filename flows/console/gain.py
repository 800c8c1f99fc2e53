"""What a manifest was worth: scores by arm and learner, the differences, and what each filter adds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flows.console import ranks as ranking
from flows.console.layout import Column, Paragraph, Table

KINDS = {True: "augmented", False: "plain"}
"""What a row's `augmented` is called; a string stands for itself."""

SPREAD = len(" (.000)")
"""Characters that a standard deviation takes after a mean."""

COMPARISONS = {
    "filtered - raw": "Against all pairs, filtering",
    "filtered - random": "Against a random subset of the same size, filtering",
    "augmented - plain, filtered": "Augmenting the filtered pairs",
}
"""The differences of the short form, by name, and how its sentences begin."""


def brief(gain: Mapping[str, Any]) -> Group:
    """The scores, and a sentence for each of `COMPARISONS`. `gain` is what `training.studies.gain.measure` returns."""
    return Group(_scores(gain), *map(Paragraph, _summary(gain)))


def table(gain: Mapping[str, Any]) -> Group:
    """The scores and all sentences: what made a difference, and what each filter adds."""
    score, filters = gain["metrics"][0][1], gain["filters"]
    first = [each for learner in gain["learners"] for each in learner["differences"] if each["first"]]
    parts: list[RenderableType] = [_scores(gain), Text()]
    for ranked in _ranks(gain["ranks"]):
        parts += [ranked, Text()]
    if gain.get("answering"):
        parts += [Text(each, "dim") for name in ("sizes", "wups") for each in gain["answering"][name]]
        parts += [*(Text(each["sentence"], "bold") for each in gain["answering"]["alarms"]), Text()]
    parts += _learning(gain)
    parts += [Text(f"Differences in {score}; {gain['interval']}", "italic"), *map(_sentence, first)]
    if gain["versions"]:
        parts.append(Text(gain["versions"]["says"]))
    parts += [Text(), Text(f"What each filter adds; {filters['interval']}", "italic")]
    parts += map(_sentence, filters["differences"])
    parts += [Text(each["sentence"], "dim") for each in filters["same"]]
    return Group(*parts)


def over_pools(measured: Mapping[str, Any]) -> Group:
    """The differences over pools. `measured` is what `training.studies.pools.summarize` returns."""
    columns = (Column("learner", "name"), Column("difference", "name"), Column("mean"), Column("low"), Column("high"))
    table = Table(columns, f"Differences in {measured['metric']}, {measured['seeds']} seeds a pool")
    for learner in measured["learners"]:
        for each in learner["differences"]:
            numbers = (f"{each[name]:+.3f}" for name in ("difference", "low", "high"))
            table.add(learner["name"], each["name"], *numbers, style="" if each["clear"] else "dim")
    return Group(table, Text(measured["interval"], "italic"))


def _scores(gain: Mapping[str, Any]) -> Table:
    learners, (main, score), baseline = gain["learners"], gain["metrics"][0], gain["baseline"]
    columns = (Column("arm", "name"), Column("pictures", "name"), Column("pairs"))
    title = f"{score[:1].upper()}{score[1:]} (sd) on {gain['test']['says']}, {gain['budget']['seeds']} seeds"
    table = Table((*columns, *(Column(learner["name"]) for learner in learners)), title)
    for rows in zip(*(learner["rows"] for learner in learners), strict=True):
        first = rows[0]
        kind = KINDS.get(first["augmented"], first["augmented"])
        scores = [_score(row[f"{main}_mean"], row[f"{main}_sd"]) for row in rows]
        table.add(first["arm"], kind, f"{first['pairs_mean']:.0f}", *scores)
    table.add(baseline["says"], "", "", *(f"{baseline[main]:.3f}{'':{SPREAD}}" for _ in learners), style="dim")
    return table


def _ranks(ranks: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Of retrieval, by learner and cell: a table for each direction."""
    if not ranks:
        return []
    named = [
        (f"{each['learner']}, {each['arm']} {KINDS.get(each['augmented'], each['augmented'])}", each["directions"])
        for each in ranks
    ]
    return ranking.tables(named, "trained")


def _learning(gain: Mapping[str, Any]) -> list[RenderableType]:
    """Of models, the losses of each cell, and warnings."""
    says = [
        Text(f"{each['learner']}, {each['arm']} {KINDS[each['augmented']]}: {each['sentence']}", "dim")
        for each in gain.get("losses", ())
    ]
    says += [Text(f"warning: {each}") for each in gain.get("remarks", ())]
    return [*says, Text()] if says else []


def _score(mean: float, deviation: float) -> str:
    """Three decimals each. A deviation below 1 is written without its zero: 0.812 (.013)."""
    return f"{mean:.3f} ({f'{deviation:.3f}'.removeprefix('0')})"


def _sentence(difference: Mapping[str, Any]) -> Text:
    """Dim where the interval includes 0."""
    return Text(difference["sentence"], "" if difference["clear"] else "dim")


def _summary(gain: Mapping[str, Any]) -> Iterator[str]:
    for name, subject in COMPARISONS.items():
        effects: dict[str, list[str]] = {}
        for learner in gain["learners"]:
            for each in learner["differences"]:
                if each["name"] == name:
                    effects.setdefault(_effect(each), []).append(f"{learner['name']} {_interval(each)}")
        if effects:
            clauses = [f"{verb} {', '.join(learners)}" for verb, learners in effects.items()]
            yield f"{subject} {', and '.join(clauses)}."


def _effect(difference: Mapping[str, Any]) -> str:
    if not difference["clear"]:
        return "has no clear effect on"
    return "helps" if difference["difference"] > 0 else "harms"


def _interval(difference: Mapping[str, Any]) -> str:
    text = f"{difference['difference']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return text.replace(" ", "\N{NO-BREAK SPACE}")
