"""Pairs that are published, to be published anew from what is stored, perhaps with one more score.

Nothing is listed, fetched or scored that is there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import SourceError, did_you_mean
from pipeline.filtering import predicates
from pipeline.ledger.ledger import Ledger, Shard, past_ledger
from pipeline.manifest.manifest import Manifest
from pipeline.scorers.spec import PoolSpec
from pipeline.scoring.plan import Plan
from pipeline.sources.source import Source


@dataclass(frozen=True)
class Backfill:
    """A manifest's pairs, the reasons of its quarantined shards, and the plan of the scores that it is to have."""

    plan: Plan
    ledger: Ledger
    quarantined: Mapping[int, str]

    @property
    def shards(self) -> Sequence[Shard]:
        """Those that have scores."""
        return [shard for shard in self.ledger.shards if shard.number not in self.quarantined]


def add_scorer(source: Source, manifest: Manifest, scorer: str) -> Backfill:
    """What publishes the manifest's pairs with the scores of one more scorer. Loads no model.

    Raises SourceError for an unknown scorer, and as `stored` does; RecipeError for a filter that needs another score.
    """
    if scorer not in source.scorers:
        raise SourceError(f"{source.name}: there is no scorer {scorer!r}{did_you_mean(scorer, source.scorers)}")
    found = from_manifest(source, manifest, {scorer, *source.scorers[scorer].builds_on})
    made = found.plan.results(manifest.storage, found.ledger, found.quarantined)
    predicates.bind(source.own_recipe.filters, made.columns)
    return found


def from_manifest(source: Source, manifest: Manifest, more: Collection[str] = ()) -> Backfill:
    """What publishes the manifest's pairs anew: with the scores that it has, and those of `more` scorers.

    Other scorers of the source are left out. Raises SourceError for settings that are not those of the manifest.
    """
    stages = manifest.document["stages"]
    scorers = {name: spec for name, spec in source.scorers.items() if name in {*stages["scores"], *more}}
    narrow = source.model_copy(update={"scorers": scorers})
    with manifest.connection() as con:
        told = con.execute(
            "SELECT shard, any_value(error) FILTER (status = 'quarantined') FROM rows GROUP BY shard"
        ).fetchall()
    reasons = {number: reason for number, reason in told if reason is not None}
    ledger = past_ledger(manifest.storage, **manifest.document["ledger"], numbers={number for number, _ in told})
    plan = Plan.of(narrow)
    made = plan.results(manifest.storage, ledger, reasons)
    if plan.shards.key != stages["shards"]:
        raise SourceError("[download] has changed since the pictures were stored: `winnow curate` fetches them anew")
    for name, key in made.keys["scores"].items():
        same = stages["scores"].get(name, key) == key or isinstance(scorers[name], PoolSpec)  # a pool may have shrunk
        if name not in more and not same:
            raise SourceError(f"scorers.{name} has changed since it was published: `winnow curate` scores it anew")
    return Backfill(plan, ledger, reasons)
