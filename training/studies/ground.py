"""What the trainings of a sweep share: the pool, its pairs and the gallery, as the towers of a model read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.errors import CompareError
from pipeline.manifest.arms import Choice
from pipeline.progress import Progress
from pipeline.settings.model import Model
from pipeline.settings.task import Task
from pipeline.sources.source import Source
from pipeline.store.digests import digest
from pipeline.store.storage import Storage
from training.data import pool
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.learners.inputs import Inputs
from training.studies import corpus
from training.studies.corpus import Corpus, Gallery


class Ground(NamedTuple):
    """The pool of a manifest, its pairs, the caption of each row, and the gallery of the test set."""

    known: Pool
    pairs: Corpus
    captions: tuple[str, ...]
    gallery: Gallery


@dataclass(frozen=True)
class Grounds:
    """One ground for all models whose towers read alike: heads, objectives, rates and seeds do not matter."""

    source: Source
    storage: Storage
    choice: Choice
    task: Task
    test: HeldOut | None
    progress: Progress
    _known: dict[str, Ground] = field(default_factory=dict)

    def of(self, model: Model, identity: Mapping[str, Any]) -> Ground:
        """The ground of a model. Raises CompareError without a test set that has captions."""
        frozen = [model.image_blocks == 0, model.text_blocks == 0]
        reads = [identity["image"], identity["text"], model.image_size, model.context, model.pooling, frozen]
        key = digest(reads)
        if key not in self._known:
            self._known[key] = self._read(model, identity)
        return self._known[key]

    def _read(self, model: Model, identity: Mapping[str, Any]) -> Ground:
        from training.dual import build

        inputs = Inputs(build.build(model, 0), identity, self.storage)
        decoder = self.source.decoder
        extractor = corpus.extractor(inputs, decoder, None)
        known = pool.read(self.choice, self.task, [extractor], self.test, self.progress)
        if known.test.pairs is None:
            raise CompareError(f"{self.source.name}: a sweep ranks the captions of a test set, and the task has none")
        return Ground(
            known,
            corpus.read(inputs, self.choice, known, known.features[0], decoder, ""),
            tuple(pool.captions(self.choice, known.table["uid"])["caption"].to_pylist()),
            corpus.gallery(inputs, self.choice, known.test, known.heldout[0], decoder),
        )
