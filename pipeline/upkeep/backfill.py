"""Publishing the pairs of a manifest again from what is stored, perhaps with one more score.

No list is read, and nothing that is stored is fetched or scored again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from pipeline.errors import SourceError, did_you_mean
from pipeline.filtering import predicates
from pipeline.ledger.ledger import Ledger, Shard, past_ledger
from pipeline.manifest.manifest import Manifest
from pipeline.scorers.spec import PoolSpec
from pipeline.scoring.plan import Plan
from pipeline.sources.source import Source


@dataclass(frozen=True)
class Backfill:
    """The pairs of a manifest, the reasons of its quarantined shards, and the plan of the scores to publish."""

    plan: Plan
    ledger: Ledger
    quarantined: Mapping[int, str]

    @property
    def shards(self) -> Sequence[Shard]:
        """The shards that are not quarantined."""
        return [shard for shard in self.ledger.shards if shard.number not in self.quarantined]


def add_scorer(source: Source, manifest: Manifest, scorer: str) -> Backfill:
    """The manifest's pairs with the scores of one more scorer. Loads no model.

    Raises SourceError for an unknown scorer, and as `from_manifest` does; RecipeError for a filter without its score.
    """
    if scorer not in source.scorers:
        raise SourceError(f"{source.name}: there is no scorer {scorer!r}{did_you_mean(scorer, source.scorers)}")
    found = from_manifest(source, manifest, {scorer, *_needed(source, scorer)})
    made = found.plan.results(manifest.storage, found.ledger, found.quarantined)
    predicates.bind(source.own_recipe.filters, made.columns)
    return found


def _needed(source: Source, scorer: str) -> set[str]:
    """The scorers that a scorer builds on, and those that they build on."""
    direct = source.scorers[scorer].builds_on
    return {*direct, *(name for of in direct for name in _needed(source, of))}


def from_manifest(source: Source, manifest: Manifest, more: Collection[str] = ()) -> Backfill:
    """The manifest's pairs with the scores that it has, and those of `more` scorers of the source.

    Raises SourceError if settings have changed since the manifest was published.
    """
    stages = manifest.stages
    scorers = {name: spec for name, spec in source.scorers.items() if name in {*stages.scores, *more}}
    narrow = source.model_copy(update={"scorers": scorers})
    with manifest.connection() as con:
        shards = con.execute(
            "SELECT shard, any_value(error) FILTER (status = 'quarantined') FROM rows GROUP BY shard"
        ).fetchall()
    reasons = {number: reason for number, reason in shards if reason is not None}
    inputs = manifest.document.inputs
    ledger = past_ledger(manifest.storage, **asdict(inputs.ledger), numbers={number for number, _ in shards})
    plan = Plan.of(narrow)
    made = plan.results(manifest.storage, ledger, reasons)
    if plan.shards.key != stages.shards:
        raise SourceError("[download] has changed since the pictures were stored: `winnow curate` fetches them anew")
    for name, key in made.keys["scores"].items():
        same = stages.scores.get(name, key) == key or isinstance(scorers[name], PoolSpec)  # a pool may have shrunk
        if name not in more and not same:
            raise SourceError(f"scorers.{name} has changed since it was published: `winnow curate` scores it anew")
    return Backfill(plan, ledger, reasons)
