"""Trials: one training of one learner on one arm, as a JSON object. Training writes them; the report and SQL read them.

A process claims a trial before it trains it, so that two concurrent runs do not both train it. If both do, no harm is
done: the same setting gives the same trial, and the first result is kept.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.store.digests import canonical_json, digest
from pipeline.store.storage import Storage

FORMAT = 6
"""The version of a trial's JSON."""

GAIN = 14
"""The version of the JSON that summarizes trials as a gain."""

COMPARED = 2
"""The version of the JSON that compares encoders."""


@dataclass(frozen=True)
class Setting:
    """The inputs of a trial. Its key is a digest of them.

    `recipe` is a name, and `choice` identifies its content. `learner` is the name in the source file of a `head` on an
    `encoder`. `code` is the version of the training code. If `augmented`, then `augmentation` is image, text, both or
    guarded. `budget` has no number of seeds. `kind` and `column` are those of the task; predictions are positions in
    `classes`. `test` is the digest of the held-out pictures and labels.
    """

    code: int
    source: str
    manifest: str
    recipe: str
    choice: str
    learner: str
    head: str
    arm: str
    augmented: bool
    seed: int
    budget: Mapping[str, Any]
    encoder: Mapping[str, Any]
    kind: str
    column: str | None
    classes: Mapping[str, tuple[str, ...]]
    test: str
    augmentation: str = "image"

    @property
    def cell(self) -> tuple[str, bool | str]:
        """The arm, and the augmentation: False for none, True for pictures alone, else `augmentation`."""
        return self.arm, self.augmented and (self.augmentation == "image" or self.augmentation)

    @property
    def description(self) -> str:
        """Learner, arm, augmentation and seed, for an error."""
        plain = f"learner {self.learner!r}, arm {self.arm!r}, seed {self.seed}"
        return f"{plain}, augmented ({self.augmentation})" if self.augmented else plain

    @property
    def key(self) -> str:
        """The storage key of the trial, without the file extension."""
        pairs = [[name, list(words)] for name, words in self.classes.items()]  # their order matters
        return f"trials/{digest(asdict(self) | {'classes': pairs, 'format': FORMAT})[:32]}"

    @property
    def draw(self) -> str:
        """The storage key of the rows drawn for every arm of this seed, without the file extension."""
        pairs = [[name, list(words)] for name, words in self.classes.items()]
        inputs = [
            self.code,
            self.source,
            self.manifest,
            self.choice,
            self.kind,
            self.column,
            pairs,
            self.test,
            self.seed,
            FORMAT,
        ]
        return f"draws/{digest(inputs)[:32]}"


@dataclass(frozen=True)
class LearningCurvePoint:
    """A point of a learning curve: the main score after training on `images` pictures, including repetitions."""

    images: int
    score: float


@dataclass(frozen=True)
class EpochLosses:
    """The mean losses of an epoch, from 1, which ends after `steps` steps. Without validation pairs one is None."""

    epoch: int
    steps: int
    train: float
    validation: float | None


@dataclass(frozen=True)
class Trial:
    """The result of a setting on the held-out pictures.

    `pairs` pairs were drawn, of which `distinct` are different. `scores` has the main score first. `baseline` is the
    main score of a learner that sees no picture. `per_class` has precision, recall, f1 and support. `predictions` has a
    class number or a number for each held-out picture. For captions it has the ranks, or the cosines minus a threshold,
    of `training.measures.matching`. All scores are computed from it. `learning_rate` is the best one on pairs that the
    seed did not draw, if several were tried, and None if none was set. `images` were seen in all tries, including
    repetitions, and `seconds` is the training time. `memory_mb`, MiB, is the peak memory of the process in that time,
    or that of the GPU if there is one. Only models have `losses`.
    """

    setting: Setting
    pairs: int
    distinct: int
    scores: Mapping[str, float]
    baseline: float
    per_class: Mapping[str, Mapping[str, float]]
    curve: Sequence[LearningCurvePoint]
    predictions: list[int] | list[float]
    learning_rate: float | None
    images: int
    seconds: float
    losses: Sequence[EpochLosses] = ()
    memory_mb: int | None = None

    @property
    def points(self) -> float:
        """The main score minus the baseline, in hundredths."""
        return 100 * (next(iter(self.scores.values())) - self.baseline)

    def to_json(self) -> bytes:
        """One flat JSON object: the setting's fields and the scores beside the other results.

        `score`, the main score, and `seconds_per_point` are for SQL. The latter is NULL if the score is not above the
        baseline.
        """
        fields = asdict(self)
        setting, scores = fields.pop("setting"), fields.pop("scores")
        setting["classes"] = [[name, list(words)] for name, words in self.setting.classes.items()]
        scores = {"score": next(iter(scores.values())), **scores}
        cost = {"seconds_per_point": self.seconds / self.points if self.points > 0 else None}
        draw = {"draw": Path(self.setting.draw).name}
        return canonical_json(setting | fields | scores | cost | draw | {"scores": list(self.scores)})

    @classmethod
    def from_json(cls, text: bytes) -> "Trial":
        """The reverse of `to_json`."""
        fields = json.loads(text)
        fields["classes"] = {name: tuple(words) for name, words in fields["classes"]}
        setting = Setting(**{name: fields.pop(name) for name in Setting.__dataclass_fields__})
        fields["scores"] = {name: fields.pop(name) for name in fields["scores"]}
        fields["curve"] = [LearningCurvePoint(**look) for look in fields["curve"]]
        fields["losses"] = tuple(EpochLosses(**each) for each in fields.get("losses", ()))
        fields.setdefault("memory_mb", None)  # of older trials
        return cls(setting, **{name: fields[name] for name in cls.__dataclass_fields__ if name != "setting"})


def finished(storage: Storage) -> list[str]:
    """The storage keys of all stored trials."""
    return [key for key in storage.keys("trials") if key.endswith(".json")]


def gain_of(storage: Storage, manifest: str) -> dict[str, Any] | None:
    """The last measured gain of the published recipe; None if there is none of this version."""
    paths = storage.fetch_all(storage.keys("gains"))
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        gain: dict[str, Any] = json.loads(path.read_bytes())
        if gain["manifest"] == manifest and gain["code"] == GAIN and gain["published"]:
            return gain
    return None
