"""From the selection of a recipe to its algorithm."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.core import SELECTION
from filters.selections import DensityPruning, Matching, Selection, SoftCap
from pipeline.errors import RecipeError, did_you_mean
from pipeline.filtering import predicates
from pipeline.neighbours import soft_assignment
from pipeline.progress import StepProgress, silent_step
from pipeline.selection import density, drawn, matching, soft_cap
from pipeline.selection.survivors import Chosen, Scorers, Size, Survivors


def check(selection: Selection, scorers: Scorers, columns: pa.Schema) -> None:
    """Check a recipe's selection against the columns of `rows` and the scorers that it may name.

    Raises RecipeError with a message of one line.
    """
    for key, sql in selection.values.items():
        predicates.bind_number(f"{SELECTION}.{key}", sql, columns)
    of, features = selection.embeddings, selection.features
    if of is not None and of not in scorers.embeddings:
        raise RecipeError(
            f"{SELECTION}.of: no scorer {of!r} stores embeddings{did_you_mean(of, scorers.embeddings)}; one of kind "
            "clip or recorded does"
        )
    if features is not None and features not in scorers.features:
        raise RecipeError(
            f"{SELECTION}.of: no scorer {features!r} has the features of a target set"
            f"{did_you_mean(features, scorers.features)}; one of kind target_features has them, once it is curated"
        )


def choose(selection: Selection, survivors: Survivors, progress: StepProgress = silent_step) -> Chosen:
    """How many times each survivor is kept. `progress` is that of the slow part of a set. Raises RecipeError."""
    match selection:
        case SoftCap():
            return soft_cap.choose(selection, survivors)
        case DensityPruning():
            return _prune(selection, survivors, progress)
        case Matching():
            return _match(selection, survivors, progress)


def size(selection: Selection, survivors: Survivors) -> Size:
    """How many survivors `choose` would keep. Raises RecipeError."""
    if isinstance(selection, SoftCap):
        chosen = choose(selection, survivors)
        return Size(int((chosen.copies > 0).sum()), int(chosen.unknown.sum()))
    unknown = int(drawn.unknown(survivors, _embedded(selection, survivors)).sum())
    known = len(survivors) - unknown
    return Size(min(selection.samples(survivors.pool, known), known), unknown)


def _embedded(selection: DensityPruning | Matching, survivors: Survivors) -> str:
    """The scorer whose embeddings are read."""
    return survivors.target(selection.of).of if isinstance(selection, Matching) else selection.of


def _prune(selection: DensityPruning, survivors: Survivors, progress: StepProgress) -> Chosen:
    unknown = drawn.unknown(survivors, selection.of)
    found = drawn.draw(survivors, selection.of, unknown)
    budget = selection.samples(survivors.pool, len(found.places))
    kept = density.prune(found.vectors, budget, selection.clusters, selection.temperature, progress)
    return _chosen(found.places[kept], unknown)


def _match(selection: Matching, survivors: Survivors, progress: StepProgress) -> Chosen:
    target = survivors.target(selection.of)
    unknown = drawn.unknown(survivors, target.of)
    found = drawn.draw(survivors, target.of, unknown)
    budget = selection.samples(survivors.pool, len(found.places))
    assigned = soft_assignment.assign(found.vectors, target.centroids, target.temperature)
    return _chosen(found.places[matching.choose(assigned, target.shares, budget, progress)], unknown)


def _chosen(places: npt.NDArray[np.int64], unknown: npt.NDArray[np.bool_]) -> Chosen:
    copies = np.zeros(len(unknown), np.uint16)
    copies[places] = 1
    return Chosen(copies, unknown)
