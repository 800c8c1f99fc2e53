"""From what a person types to a source and its results, with the errors that can be told before anything starts."""

from collections.abc import Sequence
from pathlib import Path

from filters.core import Recipe
from pipeline.demo import truth
from pipeline.errors import SourceError
from pipeline.filtering import distinct, predicates
from pipeline.filtering.recipes import find_recipe
from pipeline.ledger import lists
from pipeline.review import calibrate
from pipeline.sources import loading
from pipeline.sources.columns import row_columns
from pipeline.sources.source import Source
from pipeline.store.storage import Storage


def opened(name: str, root: Path) -> tuple[Source, Storage]:
    """The source meant by a path or a name, and where its results lie. Raises SourceError."""
    described = loading.load(name)
    return described, Storage(root / described.name)


def checked(name: str) -> Source:
    """The source, with its filters bound against the columns that its rows will have. Raises WinnowError."""
    described = loading.load(name)
    columns = lists.extra_columns(described)
    if columns is not None:
        columns = row_columns(columns, described.scorers)
        predicates.bind(described.own_recipe.filters, columns)
        radii = {name: spec.radius for name, spec in described.neighbour_scorers.items()}
        distinct.check(described.own_recipe.distinct, radii, columns)
    return described


def published(root: Path, names: Sequence[str]) -> list[Storage]:
    """The named sources' results, or those of the only source under the root. Raises SourceError."""
    known = sorted(path.parent.name for path in root.glob("*/log") if path.is_dir())
    if not known:
        raise SourceError(f"nothing is published under {root}: run `winnow curate` first, or name another --root")
    if not names and len(known) > 1:
        raise SourceError(f"{root} has several sources; choose with --source: {', '.join(known)}")
    for name in names:
        if name not in known:
            raise SourceError(f"nothing is published under {root} for {name!r}; there is {', '.join(known)}")
    return [Storage(root / name) for name in names or known]


def standing(root: Path) -> list[tuple[Source | None, Storage]]:
    """Every source with anything under the root, and its file in data_manifests/, None where there is none."""
    files = {path.stem: path for path in loading.source_files()}
    folders = sorted(path.parent for path in root.glob("*/ledger") if path.is_dir())
    if not folders:
        raise SourceError(f"there is no source under {root}; name another --root")
    return [(loading.load(files[each.name]) if each.name in files else None, Storage(each)) for each in folders]


def recipes(described: Source, names: Sequence[str] | None) -> list[Recipe]:
    """Those recipes; without names, the source's own. Raises RecipeError."""
    return [find_recipe(name) for name in names] if names else [described.own_recipe]


def labels(described: Source, storage: Storage, file: Path | None) -> Path:
    """The labels of a source's own pairs: `file`, or the source file's, or those of the demo. Raises SourceError."""
    path = _listed(described, file)
    if path is None and described.demo is not None:
        path = truth.labels(described, storage)
    if path is None:
        raise SourceError(f"{described.name}: there are no labels: name them with --labels, or as calibration.labels")
    return path


def sample_labels(described: Source, storage: Storage, file: Path | None) -> Path:
    """The labels of the sample that thresholds are chosen on; the demo has a stream of its own for it."""
    if _listed(described, file) is None and described.demo is not None:
        return truth.labels(truth.sample(described), calibrate.room(storage))
    return labels(described, storage, file)


def sample(described: Source, storage: Storage, file: Path | None) -> Source:
    """That sample as a source of its own. Raises SourceError for pairs that the demo does not serve."""
    path = _listed(described, file)
    if described.demo is None:
        return calibrate.sample(described, labels(described, storage, file))
    if path is not None:
        raise SourceError(f"{path.name} has pairs that {described.name} did not publish, and the demo serves no others")
    return truth.sample(described)


def _listed(described: Source, file: Path | None) -> Path | None:
    """The file of labels that somebody named. Raises SourceError if it does not exist."""
    path = file or described.calibration.labels
    if path is not None and not path.is_file():
        raise SourceError(f"there is no labelled sample {path}")
    return path
