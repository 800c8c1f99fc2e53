"""The labelled sample as a source of its own, and the manifest that has its scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.review.sample import Labelled
from pipeline.scorers.leaks import LeaksSpec
from pipeline.scoring.plan import Plan
from pipeline.settings.pairs import Pairs
from pipeline.sources.source import Source
from pipeline.store.storage import Storage

FOLDER = "calibration"
"""The folder in a source's storage with the sample's own results, and the figures of `pipeline.review.calibrate`."""


def sample_storage(storage: Storage) -> Storage:
    """The store of the sample's results, if it is a source of its own."""
    return storage.below(FOLDER)


def sample_source(source: Source, labels: Path) -> Source:
    """The labelled pairs as a source of their own: fetched and scored as those of `source`, and nothing is dropped."""
    read = {column for spec in source.scorers.values() for column in spec.reads} - {"url", "caption"}
    return unfiltered(source, {"pairs": Pairs(location=str(labels), extra=tuple(sorted(read))), "union": {}})


def unfiltered(source: Source, pairs: Mapping[str, Any]) -> Source:
    """A source of other pairs with the download settings and the scorers of this one, but no recipe and no task.

    `pairs` are the settings that say where its pairs come from.
    """
    own = {"name": f"{source.name}-calibration"} | dict.fromkeys(("recipe", "filters", "distinct", "selection", "task"))
    # Nothing is trained on the sample, so no test picture can leak into it.
    scorers = {name: spec for name, spec in source.scorers.items() if not isinstance(spec, LeaksSpec)}
    return source.model_copy(update={**own, "scorers": scorers, **pairs})


def scored(source: Source, storage: Storage, labels: Path) -> tuple[Labelled, Manifest] | None:
    """The sample, and the manifest with all its pairs, scored as the source file says now; None without one.

    It is the newest manifest of the source, or of the sample as a source of its own.
    """
    if not labels.is_file():
        return None
    known = Labelled.read(labels, source.calibration.good)
    plan = Plan.of(source)
    for each in (storage, sample_storage(storage)):
        manifest = Manifest.open(each) if commits(each) else None
        if manifest and manifest.complete and _same(manifest, plan):
            with manifest.connection() as con:
                located = known.located(con)
            if _whole(manifest, located):
                return located, manifest
    return None


def _same(manifest: Manifest, plan: Plan) -> bool:
    """Whether this plan made the manifest's pictures and scores. Scores of the whole pool are those of its own pool."""
    stages = manifest.stages
    same = all(stages.scores.get(name) == stage.key for name, stage in plan.scores.items())
    return same and stages.shards == plan.shards.key


def _whole(manifest: Manifest, known: Labelled) -> bool:
    with manifest.connection() as con:
        con.from_arrow(known.table).create("sample")
        ((missing,),) = con.execute("SELECT count(*) FROM sample ANTI JOIN rows USING (uid)").fetchall()
    return not missing
