"""Publishing: the results of all shards become one immutable, content-addressed manifest in one atomic commit.

Every object is named by its content, and is stored before the object that names it. The last object, `log/<n>.json`,
makes the manifest the newest. A run that ends before that changes nothing, and the next run reuses its parts.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from filters.core import SELECTION, Filter, Recipe
from pipeline.errors import RecipeError, StorageError
from pipeline.filtering import distinct, predicates
from pipeline.filtering.distinct import Neighbours
from pipeline.filtering.finite import finite
from pipeline.ledger import blocklist
from pipeline.ledger.ledger import Ledger
from pipeline.manifest import card, database, deciding, placeholders, unanswered, unmatched, verdicts
from pipeline.manifest.document import Counts, Document, Inputs, LedgerState, StageKeys, without_why
from pipeline.manifest.log import commit, commits
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.parts import FORMAT, parts
from pipeline.progress import StepProgress, silent_step
from pipeline.scorers import mixture_file
from pipeline.scorers.edges import EDGES
from pipeline.scorers.mixed import MixedSpec
from pipeline.scoring.plan import Plan, Results
from pipeline.selection import choosing
from pipeline.selection.survivors import Scorers
from pipeline.store import duck
from pipeline.store.damage import complete, intact
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage


@dataclass(frozen=True)
class Published:
    """The newest manifest after a run. `new` is False if it is the same as before.

    `repaired` has the keys of damaged verdicts that were written again.
    """

    id: str
    new: bool
    counts: Counts
    repaired: tuple[str, ...] = ()


def publish(
    plan: Plan,
    storage: Storage,
    ledger: Ledger,
    quarantined: Mapping[int, str],
    recipe: Recipe | None = None,
    progress: StepProgress = silent_step,
) -> Published:
    """Publish the results of the ledger's pairs. Idempotent: a second run writes nothing.

    `recipe` defaults to the source's own. `quarantined` gives the reason for each shard without a result; its pairs
    become rows with that status. `progress` is that of a selection. Raises RecipeError for a filter that does not bind
    or fails on a row, StorageError for a result that is missing or is not aligned with its pairs, and ModelError for
    recorded embeddings of which no key was found.
    """
    made = plan.results(storage, ledger, quarantined)
    recipe, started = recipe or plan.source.own_recipe, time.monotonic()
    inputs = _inputs(storage, ledger, made, quarantined, recipe)
    seconds, neighbours = time.monotonic() - started, inputs.neighbours
    if newest := _unchanged(storage, inputs):
        database.refresh(storage)
        return Published(newest.id, False, newest.counts)
    with storage.scratch() as scratch, duck.connect(scratch, threads=1) as con:
        paths = storage.fetch_all(part.key for part in inputs.rows)
        unmatched.check(con, plan.source.scorers, made.scores, paths)
        facts = card.describe(con, storage, made, paths) | placeholders.count(con, storage, paths) | card.why(recipe)
        facts |= unmatched.count(con, plan.source.scorers, paths)
        facts |= unanswered.count(con, plan.source.scorers, paths)
    if neighbours:
        facts |= {"neighbours": distinct.edge_counts(storage, neighbours)}
    if mixtures := _mixtures(storage, made):
        facts |= {"mixtures": mixtures}
    return decide(storage, inputs, facts, seconds, progress)


def unchanged(plan: Plan, storage: Storage, ledger: Ledger) -> Published | None:
    """What `publish` returns if it changes nothing and every result is stored; None if there is anything to do.

    Raises what `publish` raises.
    """
    made = plan.results(storage, ledger, ())
    if not made.complete(storage, ledger.shards):
        return None
    newest = _unchanged(storage, _inputs(storage, ledger, made, {}, plan.source.own_recipe))
    return Published(newest.id, False, newest.counts) if newest else None


def republish(storage: Storage, recipe: Recipe, progress: StepProgress = silent_step) -> Published:
    """Publish the newest manifest's rows under another recipe. Nothing is downloaded or scored.

    The id is the one that `publish` gives a source with these rows and this recipe. `progress` is that of a selection.
    Raises RecipeError if a filter does not bind, fails on a row, or has no answer for any pair, for example because its
    scores were never computed.
    Raises StorageError after an interrupted takedown, because its pairs are still in these rows.
    """
    if blocklist.pending(storage).uids:
        raise StorageError("a takedown was interrupted: run `winnow curate`, which publishes the remaining pairs")
    newest = Manifest.open(storage)
    for part in newest.parts:
        if not complete(storage, part.rows, part.count):
            raise StorageError(f"{storage.address(part.rows)} is damaged: run `winnow curate`, which writes it again")
    try:
        newest.check_last(recipe)
        rows, values = newest.compare([replace(recipe, selection=None), _scored(recipe)]).funnels
    except RecipeError as error:
        raise RecipeError(f"recipe {recipe.name!r} does not fit the published scores: {error}") from None
    needs = {f"filter {each.filter!r}": each for each in rows.steps}
    needs |= {each.filter.replace("-", ".", 1): each for each in values.steps}
    for what, step in needs.items():
        if step.unscored == newest.counts.pool > 0:
            raise RecipeError(f"recipe {recipe.name!r}: no pair has the scores that {what} needs")
    inputs = newest.document.inputs.under(recipe)
    if _unchanged(storage, inputs):
        database.refresh(storage)
        return Published(newest.id, False, newest.counts)
    return decide(storage, inputs, {**newest.card, **card.why(recipe)}, progress=progress)


def _scored(recipe: Recipe) -> Recipe:
    """For each number that the selection needs of a pair a filter that has no answer for a pair without it."""
    values = recipe.selection.values if recipe.selection else {}
    filters = (Filter(f"{SELECTION}-{key}", f"(\n{finite(sql)}\n) IS NOT NULL OR NULL") for key, sql in values.items())
    return Recipe(SELECTION, tuple(filters))


def decide(
    storage: Storage,
    inputs: Inputs,
    facts: Mapping[str, Any],
    seconds: float = 0.0,
    progress: StepProgress = silent_step,
) -> Published:
    """Compute the verdict of every row, and commit.

    `facts` are for the card; `seconds` is the time spent on the rows; `progress` is that of a selection.
    """
    started = time.monotonic()
    newest = _newest(storage)
    last = newest.document.verdicts if newest else ()
    broken = {key for key in last if not intact(storage, key)}
    with storage.scratch() as scratch, duck.connect(scratch, threads=1) as con:
        keys = deciding.put(con, storage, inputs, progress)
        files = storage.fetch_all(part.key for part in inputs.rows), storage.fetch_all(keys)
        counts = Counts(inputs.ledger.input, inputs.ledger.repeated, **verdicts.count(con, *files))
    document = Document(inputs, tuple(keys), counts)
    repaired = tuple(key for key in keys if key in broken)
    took = [round(each, 3) for each in (seconds, time.monotonic() - started)]
    storage.put_if_absent(f"manifests/{document.id}.json", document.to_bytes())
    storage.put_if_absent(card.key(document.id), canonical_json({**facts, "seconds": took}))
    new = commit(storage, document.id)
    database.refresh(storage)
    return Published(document.id, new, counts, repaired)


def _inputs(storage: Storage, ledger: Ledger, made: Results, quarantined: Mapping[int, str], recipe: Recipe) -> Inputs:
    """The inputs of the manifest of these results. Missing rows are written."""
    neighbours = _neighbours(made)
    predicates.bind(recipe.filters, made.columns)
    distinct.check(recipe.distinct, {name: each.radius for name, each in neighbours.items()}, made.columns)
    if recipe.selection:
        scorers = Scorers(made.plan.source.embedding_scorers, made.plan.source.features_scorers)
        choosing.check(recipe.selection, scorers, made.columns)
    return Inputs(
        FORMAT,
        made.plan.source.name,
        LedgerState(ledger.digest, ledger.input, ledger.repeated),
        StageKeys(**made.keys),
        tuple(sorted(set(quarantined) & {shard.number for shard in ledger.shards})),
        tuple(parts(storage, ledger, made, quarantined)),
        without_why(recipe),
        neighbours,
    )


def _neighbours(made: Results) -> dict[str, Neighbours]:
    """The edges between near-duplicates, by the scorer that found them."""
    return {
        name: Neighbours(f"{made.scores[name].folder}/{EDGES}", spec.pictures(name), spec.radius)
        for name, spec in made.plan.source.neighbour_scorers.items()
    }


def _mixtures(storage: Storage, made: Results) -> dict[str, Any]:
    """By scorer of kind mixed, its weights and what they are worth."""
    return {
        name: json.loads(storage.fetch(f"{made.scores[name].folder}/{mixture_file.NAME}").read_bytes())
        for name, spec in made.plan.source.scorers.items()
        if isinstance(spec, MixedSpec)
    }


def _unchanged(storage: Storage, inputs: Inputs) -> Manifest | None:
    """The newest manifest, if these are its inputs. It compares keys, and computes nothing again.

    Verdicts are small, so their bytes are compared with their names as well: damaged ones are written again.
    """
    newest = _newest(storage)
    if newest is None or newest.document.inputs != inputs:
        return None
    return newest if all(intact(storage, part.verdicts) for part in newest.parts) else None


def _newest(storage: Storage) -> Manifest | None:
    """The newest manifest; None without one, or if the store has lost it or its card, which are then written again."""
    known = commits(storage)
    if not known or not all(map(storage.done, (f"manifests/{known[-1].id}.json", card.key(known[-1].id)))):
        return None
    return Manifest.open(storage)
