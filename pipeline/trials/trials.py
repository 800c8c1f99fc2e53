"""Trials: one training of one learner on one arm, as a JSON object. Training writes them; the report and SQL read them.

A trial is claimed before it is trained, so that a run by hand and a triggered one do not both train it. Nothing breaks
where both do: the same setting gives the same trial, and the first result stays.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.store.digests import canonical_json, digest
from pipeline.store.storage import Storage

FORMAT = 5
"""Raised whenever a trial's JSON would tell something else."""

GAIN = 10
"""Raised whenever the same trials would be summed up otherwise."""

COMPARED = 2
"""Raised whenever the figures of encoders side by side would tell something else."""


@dataclass(frozen=True)
class Setting:
    """All that decides a trial; its key is a digest of this.

    `recipe` is a name, and `choice` tells what it asks for. `learner` is the name that the source file gives to a
    `head` on an `encoder`; `code` is raised when the same setting would be trained otherwise; where `augmented`,
    `augmentation` says what is: image, text, both or guarded; `budget` has no number of seeds; `kind` and `column` are
    the task's, and its `classes` in the order in which predictions count them; `test` is the digest of the held-out
    pictures and labels.
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
        """Arm, and what is augmented: False for nothing, True for pictures alone, else `augmentation`."""
        return self.arm, self.augmented and (self.augmentation == "image" or self.augmentation)

    @property
    def description(self) -> str:
        """Learner, arm, augmentation and seed, for an error."""
        plain = f"learner {self.learner!r}, arm {self.arm!r}, seed {self.seed}"
        return f"{plain}, augmented ({self.augmentation})" if self.augmented else plain

    @property
    def key(self) -> str:
        """The storage key of the trial, without its ending."""
        pairs = [[name, list(words)] for name, words in self.classes.items()]  # their order counts
        return f"trials/{digest(asdict(self) | {'classes': pairs, 'format': FORMAT})[:32]}"

    @property
    def draw(self) -> str:
        """The storage key of the rows that every arm of this seed drew, without its ending."""
        pairs = [[name, list(words)] for name, words in self.classes.items()]
        made_of = [
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
        return f"draws/{digest(made_of)[:32]}"


@dataclass(frozen=True)
class LearningCurvePoint:
    """A point of a learning curve: the score that is compared, after so many pictures, repetitions counted."""

    images: int
    score: float


@dataclass(frozen=True)
class Trial:
    """What came of a setting, on the held-out pictures.

    `pairs` were drawn, `distinct` of them are different; `scores` by name, that which is compared first, and `baseline`
    what a learner that looks at no picture would get of that; `per_class` has precision, recall, f1 and support;
    `predictions` is a class number or a number for each held-out picture, or, of captions,
    what `training.measures.matching` computes: ranks, or cosines less a threshold; all scores come of it.
    `learning_rate` is the one that was best on pairs which
    the seed did not draw, where several were tried, and None where none was asked for; `images` were seen in all
    tries, repetitions counted, and `seconds` is the time that training took.
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

    @property
    def points(self) -> float:
        """Hundredths of the score that is compared above the baseline."""
        return 100 * (next(iter(self.scores.values())) - self.baseline)

    def to_json(self) -> bytes:
        """One flat JSON object: the setting's fields and the scores beside the other results.

        `score` (what is compared) and `seconds_per_point` are there for who asks in SQL; the latter is NULL where the
        baseline was not beaten.
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
        return cls(setting, **{name: fields[name] for name in cls.__dataclass_fields__ if name != "setting"})


def finished(storage: Storage) -> list[str]:
    """The storage keys of all trials that are there."""
    return [key for key in storage.keys("trials") if key.endswith(".json")]


def gain_of(storage: Storage, manifest: str) -> dict[str, Any] | None:
    """The gain of the recipe that was published, as measured last; None if none was, or by an older version."""
    paths = [storage.fetch(key) for key in storage.keys("gains")]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        gain: dict[str, Any] = json.loads(path.read_bytes())
        if gain["manifest"] == manifest and gain["code"] == GAIN and gain["published"]:
            return gain
    return None
