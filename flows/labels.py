"""Which labels a command checks against.

Those of a file, of the source file, those that the demo has itself, or else those of the table of labels, which
`winnow explore` and `winnow labels` fill.
"""

from pathlib import Path

from pipeline.demo import truth
from pipeline.errors import SourceError
from pipeline.review.labels import KEY
from pipeline.review.sample import Labelled
from pipeline.review.sample_source import sample_source, sample_storage
from pipeline.sources.source import Source
from pipeline.store.storage import Storage


def labels(described: Source, storage: Storage, file: Path | None) -> Path:
    """The labels of a source's own pairs: `file`, the source file's, those of the demo, or the table of labels.

    Raises SourceError.
    """
    path = _named(described, file)
    if path is None and described.demo is not None:
        path = truth.labels(described, storage)
    if path is None and storage.done(KEY):
        path = storage.fetch(KEY)
    if path is None:
        raise SourceError(
            f"{described.name}: there are no labels: name them with --labels, or as calibration.labels; give some in "
            "`winnow explore`, or take them in with `winnow labels`"
        )
    return path


def labelled_pairs(described: Source, storage: Storage) -> Labelled | None:
    """The labelled pairs of the source file or of the demo; None where nobody labelled any. Raises SourceError."""
    if described.calibration.labels is None and described.demo is None:
        return None
    path = labels(described, storage, None)
    return Labelled.read(path, described.calibration.good) if path.is_file() else None


def sample_labels(described: Source, storage: Storage, file: Path | None) -> Path:
    """The labels of the sample that thresholds are chosen on. The demo has a stream of its own for it."""
    if _named(described, file) is None and described.demo is not None:
        return truth.labels(truth.sample(described), sample_storage(storage))
    return labels(described, storage, file)


def labelled_source(described: Source, storage: Storage, file: Path | None) -> Source:
    """That sample as a source of its own. Raises SourceError for pairs that the demo does not serve."""
    path = _named(described, file)
    if described.demo is None:
        return sample_source(described, labels(described, storage, file))
    if path is not None:
        raise SourceError(f"{path.name} has pairs that {described.name} did not publish, and the demo serves no others")
    return truth.sample(described)


def _named(described: Source, file: Path | None) -> Path | None:
    """The file of labels that a person named. Raises SourceError if it does not exist."""
    path = file or described.calibration.labels
    if path is not None and not path.is_file():
        raise SourceError(f"there is no labelled sample {path}")
    return path
