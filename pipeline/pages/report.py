"""The report: one page with the counts, the funnel, the gain, the thresholds, sample pairs and the failures.

The page is one file and runs no script. Captions, URLs and error texts come from strangers: they are escaped, cut, and
shown as text, never as links. The page's own content policy forbids scripts and requests, too.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filters import catalog
from pipeline.errors import SourceError
from pipeline.filtering import thresholds
from pipeline.filtering.funnel import Overlap
from pipeline.manifest import copies, remarks
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.shown_pictures import ShownPictures
from pipeline.pages import charts, failures, galleries
from pipeline.pages.predictions import data_uri
from pipeline.pages.rendering import write_page
from pipeline.review import caught, diff
from pipeline.review.diff import Difference
from pipeline.review.drift import Drift
from pipeline.review.sample import Labelled
from pipeline.store.storage import Storage
from pipeline.trials.trials import COMPARED

REPORT = "report.html"
"""The page of the newest manifest that a command or a run wrote."""

ENCODERS, PARETO = "encoders.json", "encoders.svg"
"""Files that `winnow encoders` writes beside the page: its figures, and their plot."""

DRIFTED = 15
"""Columns in the table of drift."""


def write(
    storage: Storage,
    manifest: Manifest,
    gain: Mapping[str, Any] | None,
    path: Path,
    labels: Labelled | None = None,
    composition: Mapping[str, Any] | None = None,
    pictures: ShownPictures | None = None,
) -> None:
    """Write the page of a manifest to `path`. `gain` is what `training.studies.gain.measure` returns, or None.

    With `labels` of the manifest's pairs the page says what each filter caught. `composition` is what
    `training.studies.composition.part` returns: what the scorer cannot see. The page shows the comparison of encoders
    if the store has one. `pictures` are those of the manifest, by default with unsafe ones veiled.
    """
    facts = {
        **_facts(storage, manifest, gain, pictures or ShownPictures.safe(manifest)),
        "caught": _caught(manifest, labels) if labels else None,
        "encoders": _encoders(storage),
        "composition": composition,
    }
    write_page("report.html.jinja", path, facts | {"charts": charts, "data_uri": data_uri})


def _facts(
    storage: Storage, manifest: Manifest, gain: Mapping[str, Any] | None, pictures: ShownPictures
) -> dict[str, Any]:
    recipe, log = manifest.recipe, commits(storage)
    published = [commit for commit in log if commit.id == manifest.id]
    numbers = charts.histogram_fields(manifest)
    named = [each for each in catalog.recipes().values() if each.name != recipe.name and each.reasons]
    fitting = [each for each in named if manifest.fits(each)]
    others = [each for each in fitting if not each.selection]  # to choose a set takes minutes
    compared = manifest.compare([recipe, *others])
    kept = {commit.id for commit in log}  # an older manifest may have been removed
    parent = Manifest.open(storage, published[-1].parent) if published[-1].parent in kept else None
    difference = diff.between(parent, manifest, examples=0) if parent and parent.complete else None
    with manifest.connection() as con:
        lines = thresholds.find(con, recipe, [field.name for field in numbers])
        histograms = [
            charts.histogram(con, field, [line for line in lines if line.column == field.name]) for field in numbers
        ]
        ((stored,),) = con.execute("SELECT count(DISTINCT shard) FROM rows WHERE status = 'ok'").fetchall()
        return {
            "manifest": manifest,
            "counts": manifest.counts,
            "commit": published[-1],
            "funnel": compared.funnels[0].steps,
            "remarks": remarks.of(manifest),
            "copies": copies.histogram(manifest.select()["copies"].to_numpy(), manifest.counts.pool)
            if recipe.repeats
            else [],
            "compared": compared,
            "filters": _matrix([each.name for each in recipe.filters], compared.funnels[0].overlaps),
            "recipes": _matrix([each.name for each in (recipe, *others)], compared.shared),
            "omitted": [each.name for each in fitting if each.selection],
            "difference": difference,
            "drifts": _drifts(difference) if difference else [],
            "histograms": [each for each in histograms if each],
            "sampled": (min(galleries.SHARDS, stored), stored),
            "galleries": galleries.galleries(con, pictures, lines),
            "causes": failures.causes(con, manifest),
            "domains": failures.domains(con),
            "gain": gain,
        }


def _caught(manifest: Manifest, labels: Labelled) -> dict[str, Any] | None:
    """What each filter dropped of each label, as `caught.count` returns it; None for labels of other pairs."""
    try:
        return caught.count(manifest, labels)
    except SourceError:
        return None


def _encoders(storage: Storage) -> dict[str, Any] | None:
    """The comparison of encoders, with its `plot` as a data URI; None if there is none, or an older winnow wrote it."""
    if not (storage.done(ENCODERS) and storage.done(PARETO)):
        return None
    found: dict[str, Any] = json.loads(storage.fetch(ENCODERS).read_bytes())
    if found["code"] != COMPARED:
        return None
    plot = base64.b64encode(storage.fetch(PARETO).read_bytes()).decode()
    return found | {"plot": f"data:image/svg+xml;base64,{plot}"}


def _matrix(names: Sequence[str], overlaps: Sequence[Overlap]) -> list[tuple[str, list[Overlap | None]]]:
    """A row for each name, with its overlap with every name; None on the diagonal."""
    found = {(each.one, each.other): each for each in overlaps}
    return [(one, [found.get((one, other)) or found.get((other, one)) for other in names]) for one in names]


def _drifts(difference: Difference) -> list[tuple[Drift, Drift]]:
    """The columns with the most drift, of inputs and of kept pairs. A text column may be compared on one side only."""
    inputs, kept = ({each.column: each for each in side} for side in (difference.inputs, difference.kept))
    pairs = [(inputs.get(one, Drift(one, None, None)), kept.get(one, Drift(one, None, None))) for one in inputs | kept]
    return sorted(pairs, key=lambda pair: (-max(each.psi or 0.0 for each in pair), pair[0].column))[:DRIFTED]
