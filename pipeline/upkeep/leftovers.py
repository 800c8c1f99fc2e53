"""What processes of trainings leave behind that were killed between storing a result and removing what led to it."""

import re

from pipeline.models.training_record import RECORD
from pipeline.store.storage import Storage
from pipeline.upkeep.needed import Unneeded

_CLAIM = re.compile(r"(trials/[0-9a-f]+)\.claim-\d+")
_TRIAL = re.compile(r"trials-([0-9a-f]{32})")
_CELL = re.compile(r"sweeps-cells-([0-9a-f]{32}\.json)")


def of(storage: Storage) -> list[Unneeded]:
    """Claims and checkpoints of trainings whose results are stored. Those of all others stay: a training resumes."""
    claims = [
        key for key in storage.keys("trials") if (claim := _CLAIM.fullmatch(key)) and storage.done(f"{claim[1]}.json")
    ]
    models = {_named(key) for depth in ("*", "*/*") for key in storage.find(f"models/{depth}/{RECORD}")}
    saved = [key for key in storage.keys("checkpoints") if _is_done(storage, key.removeprefix("checkpoints/"), models)]
    why = "the result of the training is stored"
    return [Unneeded("claims on trials", why, claims), Unneeded("checkpoints", why, saved)]


def _named(record: str) -> str:
    """The checkpoint of a model, by the key of its record (`training.studies.fit`)."""
    return record.removeprefix("models/").removesuffix(f"/{RECORD}").replace("/", "-")


def _is_done(storage: Storage, checkpoint: str, models: set[str]) -> bool:
    if trial := _TRIAL.match(checkpoint):
        return storage.done(f"trials/{trial[1]}.json")
    if cell := _CELL.match(checkpoint):
        return storage.done(f"sweeps/cells/{cell[1]}")
    return checkpoint.removesuffix(".safetensors") in models
