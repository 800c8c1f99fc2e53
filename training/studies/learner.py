"""A learner of a source's task, and its view of the pool."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.manifest import arms
from training.data.features import Features
from training.data.pool import Pool
from training.data.texts import Texts
from training.data.versions import Versions
from training.learners import dual_encoder, probe
from training.studies import model_learner, vqa_learner
from training.studies.model_learner import ModelLearner
from training.studies.vqa_learner import VqaLearner

Rows = Mapping[str, npt.NDArray[np.int64]]
"""The rows of the pool that each arm has, with repetitions."""

Cell = tuple[str, bool | str]
"""An arm, and the augmentation: False for none, True for pictures alone, or one of versions.AUGMENTATIONS."""

CELLS: tuple[Cell, ...] = tuple((arm, augmented) for arm in arms.ARMS for augmented in (False, True))
"""What is trained for each learner and seed: an arm, and whether its pictures are augmented.

The first learner is also trained without each filter, on plain pictures, where this gives another arm than "filtered",
and on a random arm of that size.
"""


@dataclass(frozen=True)
class Learner:
    """A head on the features of an encoder: `training`, of the pool's pictures, and `heldout`, of the test set's.

    `position` is the place of the encoder among those of the pool. A learner of captions has `texts`. A learner that is
    a `model` of its own trains itself; its features are those of `training.studies.corpus.extractor`.
    """

    name: str
    head: str
    encoder: Mapping[str, object]
    training: Features
    heldout: Features
    position: int = 0
    texts: Texts | None = None
    model: ModelLearner | VqaLearner | None = None

    @property
    def code(self) -> int:
        """The version of its training."""
        if self.model is not None:
            return vqa_learner.VERSION if isinstance(self.model, VqaLearner) else model_learner.VERSION
        return dual_encoder.VERSION if self.texts else probe.VERSION

    def views(
        self, pool: Pool, rows: npt.NDArray[np.int64], augmented: bool | str, versions: Versions | None
    ) -> npt.NDArray[np.float16]:
        """Features of rows of the pool, the plain picture first: [rows, versions, dim]."""
        views: npt.NDArray[np.float16] = self.training.views[pool.table["picture"].to_numpy()[rows]]
        if augmented is True:
            return views
        plain: npt.NDArray[np.float16] = views[:, :1]
        if versions is None or augmented in (False, "text"):  # augmented captions go with the plain picture
            return plain
        return versions.select(str(augmented), rows, plain, versions.views[self.position])
