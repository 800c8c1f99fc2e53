"""The chain of learned filters: which models scored a manifest, and which manifests these were trained on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.scorers.spec import Spec


def records(scorers: Mapping[str, "Spec"]) -> dict[str, dict[str, Any]]:
    """By scorer whose model winnow trained: source, manifest, recipe, seed and test set of the training; folds.

    The certificates of these scorers have the digests of the models' weights. `cross_fitted` says whether each shard
    was scored by a model that was not trained on it.
    """
    from pipeline.models.training_record import TrainingRecord

    found = {name: list(map(TrainingRecord.read, spec.model_folders)) for name, spec in scorers.items()}
    return {
        name: {**records[0].facts, "cross_fitted": scorers[name].kind == "cross_fitted"}
        for name, records in found.items()
        if records and records[0]
    }


def remarks(trainings: Mapping[str, Mapping[str, Any]], source: str) -> list[str]:
    """A line for each of the `records` of a manifest of `source`."""
    return [f"{name}: {_sentence(facts, source)}" for name, facts in trainings.items()]


def _sentence(facts: Mapping[str, Any], source: str) -> str:
    trained = f"trained on manifest {facts['manifest'][:12]} of {facts['source']}, recipe {facts['recipe']}"
    if facts["cross_fitted"]:
        return f"cross-fitted by {facts['folds']} models, each {trained}, without the shards that it scored"
    if facts["source"] == source:
        return f"{trained}, and so on pairs that it scored, which score too well: see docs/learned-filter.md"
    return trained
