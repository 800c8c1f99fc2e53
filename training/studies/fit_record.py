"""What the record of a trained model says of its quality and of its cost."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.models import device
from training.data.pairs import Pairs
from training.learners.history import History
from training.measures import person_search, ranking
from training.measures.intervals import Bootstrap
from training.measures.metrics import Predictions
from training.studies import memory
from training.studies.corpus import Gallery

if TYPE_CHECKING:
    from training.dual.encoder import DualEncoder


def scores(gallery: Gallery, ranks: Predictions) -> dict[str, Any]:
    """The gallery's size, recalls and median ranks, the same by chance, `directions` with intervals, and `people`.

    `ranks` are those of `Gallery.ranks`. Intervals are over test pictures alone: there is one seed.
    """
    measure = gallery.measure
    captions = {"captions": len(measure.pairs.picture), "captions_cut": gallery.cut}
    return {
        "gallery": {"pictures": measure.pictures, **captions},
        **measure.scores(ranks),
        "chance": measure.baseline(np.array([]))[1],
        "directions": ranking.summarize(measure, ranks[None], Bootstrap(measure, measure.pictures, 1)),
        "people": _people(measure.pairs, ranks[measure.pictures :]),
    }


def _people(pairs: Pairs, ranks: Predictions) -> dict[str, Any]:
    """Recall of pictures by captions that name a person, and by the others."""
    found = person_search.by_person([pairs.texts[at] for at in pairs.text], ranks)
    return {
        name: {
            "queries": each.queries,
            **{f"t2i_r{k}": recall for k, recall in each.recall.items()},
            "t2i_median": each.median_rank,
        }
        for name, each in found.items()
    }


def cost(model: "DualEncoder", history: History) -> dict[str, Any]:
    """Seconds of all runs together, pictures a second, the peak memory of this process, parameters and operations."""
    from training.dual import size

    settings, measured = model.settings, size.measure(model)
    seen = history.step * settings.batch
    return {
        "steps": history.step,
        "batch": settings.batch,
        "seconds": round(history.seconds, 3),
        "validation_seconds": round(history.validation_seconds, 3),
        "images_per_second": round(seen / history.seconds, 1),
        "peak_memory_mb": memory.peak_mb(),
        "device": device.describe(settings.precision),
        "parameters": measured.parameters,
        **asdict(measured),
    }


def inexact(model: "DualEncoder") -> str | None:
    """Why the gradient is not that of the whole batch; None if it is."""
    from training.objectives import cached

    if not model.settings.cached_batch:
        return None
    return cached.warning(model.train().visual, model.text)
