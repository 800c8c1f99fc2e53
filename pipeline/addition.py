"""One more score for pairs that are published. What it needs is stored: nothing is listed, fetched or scored anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline import pairs, parts, tables
from pipeline.errors import SourceError, nearest
from pipeline.manifest import Manifest
from pipeline.pairs import Ledger, Shard
from pipeline.source import Source


@dataclass(frozen=True)
class Addition:
    """A manifest's pairs, the reasons of its quarantined shards, and the source with its scorers and the new one."""

    source: Source
    ledger: Ledger
    quarantined: Mapping[int, str]

    @property
    def shards(self) -> Sequence[Shard]:
        """Those that have scores."""
        return [shard for shard in self.ledger.shards if shard.number not in self.quarantined]


def addition(source: Source, manifest: Manifest, scorer: str) -> Addition:
    """What publishes the manifest's pairs with the scores of one more scorer. Loads no model.

    Other scorers of the source that the manifest has no scores of are left out. Raises SourceError for an unknown
    scorer, and for settings that are not those of the manifest; RecipeError for a filter that needs another score.
    """
    if scorer not in source.scorers:
        raise SourceError(f"{source.name}: there is no scorer {scorer!r}{nearest(scorer, source.scorers)}")
    stages = manifest.document["stages"]
    wanted = {*stages["scores"], scorer, *source.scorers[scorer].builds_on}
    scorers = {name: spec for name, spec in source.scorers.items() if name in wanted}
    narrow = source.model_copy(update={"scorers": scorers})
    with manifest.connection() as con:
        told = con.execute(
            "SELECT shard, any_value(error) FILTER (status = 'quarantined') FROM rows GROUP BY shard"
        ).fetchall()
    reasons = {number: reason for number, reason in told if reason is not None}
    ledger = pairs.recalled(manifest.storage, **manifest.document["ledger"], numbers={number for number, _ in told})
    made = parts.results(narrow, manifest.storage, ledger, reasons)
    if made.shards.key != stages["shards"]:
        raise SourceError("[download] has changed since the pictures were stored: `winnow curate` fetches them anew")
    for name, key in made.keys["scores"].items():
        if name != scorer and stages["scores"].get(name, key) != key:
            raise SourceError(f"scorers.{name} has changed since it was published: `winnow curate` scores it anew")
    tables.bind(narrow.chosen.filters, made.columns)
    return Addition(narrow, ledger, reasons)
