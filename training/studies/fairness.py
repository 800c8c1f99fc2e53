"""Checks that a comparison is fair. Each raises CompareError if it is not."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import CompareError, ModelError
from pipeline.images import picture_lists
from pipeline.manifest.manifest import Manifest
from pipeline.models.training_record import LEARNED, Learned
from pipeline.scorers import target_leaks, targets
from pipeline.scorers.mixed import MixedSpec
from pipeline.scorers.spec import Spec
from pipeline.scorers.target_set import TargetSet
from pipeline.settings.task import MIN_SEEDS, Task
from pipeline.store.digests import canonical_json
from pipeline.trials.trials import Trial
from training.data import labels
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.studies.learner import CELLS
from training.studies.summary import trials_of


def check_comparable(name: str, trials: Sequence[Trial]) -> None:
    """All cells of the learner `name` have the same seeds, MIN_SEEDS or more, and all else but the cell is equal."""
    for factor in ("budget", "encoder", "kind", "column", "classes", "test", "choice", "head", "code"):
        if len({canonical_json(getattr(each.setting, factor)) for each in trials}) > 1:
            raise CompareError(
                f"the trials of {name!r} differ in their {factor}: only arm, augmentation and seed may differ"
            )
    cells = dict.fromkeys([*CELLS, *(each.setting.cell for each in trials)])
    seeds = {cell: [each.setting.seed for each in trials_of(cell, trials)] for cell in cells}
    if len({tuple(of_cell) for of_cell in seeds.values()}) > 1:
        raise CompareError(f"the trials are not paired: {seeds}")
    if len(set(seeds[CELLS[0]])) < MIN_SEEDS:
        raise CompareError(f"a comparison needs at least {MIN_SEEDS} seeds: raise task.budget.seeds")


def check_test(test: HeldOut, task: Task) -> None:
    """Every class has a held-out picture, and captions or numbers differ."""
    if task.kind == "number":
        labels.check_varies("the held-out pictures", test.labels)
    if test.pairs is not None and len(test.pairs.texts) < 2:
        raise CompareError(f"the {test.description} say the same: there is nothing to tell apart")
    if task.kind == "match" and test.pairs is not None and len(np.unique(test.pairs.match)) < 2:
        raise CompareError("of the held-out pairs all match, or none: task.test.column must tell both")
    for number, name in enumerate(task.classes):
        if number not in test.labels:
            raise CompareError(
                f"no held-out picture shows the class {name!r}: take it out of task.classes, or lower task.test.agree"
            )


def check_scorers(scorers: Mapping[str, Spec], test: HeldOut) -> None:
    """No model of a scorer was trained on a picture of the test set, by sha256: a recipe would have seen the answers.

    This covers models that winnow trained. Of others nothing is known.
    """
    for name, spec in scorers.items():
        for folder in spec.model_folders:
            if (folder / LEARNED).is_file() and (shown := int(Learned.read(folder).has_pictures(test.sha256).sum())):
                raise CompareError(
                    f"scorers.{name}: {folder} was trained on {shown} picture{'s' * (shown != 1)} of the test set, so "
                    "its scores know the answers: train it again with `winnow fit`, which leaves them out"
                )


def check_targets(scorers: Mapping[str, Spec], manifest: Manifest, known: Pool) -> None:
    """No picture that was split off the pool is a target or a reference of a scorer.

    Pictures are compared by perceptual hash, embeddings of a file with the stored ones of the scorer that they are for.
    A test set that is given is compared before anything is fetched, by the scorers themselves.
    """
    names = [f"the picture {sha256[:12]}" for sha256 in known.test.sha256]
    for name, spec in scorers.items():
        try:
            if isinstance(spec, TargetSet) and spec.are_vectors:
                if spec.of in manifest.embedding_scorers:
                    vectors = targets.embed(spec.targets, None)
                    target_leaks.refuse_vectors(spec.targets, vectors, *_embeddings(manifest, spec.of, known))
            elif isinstance(spec, TargetSet):
                target_leaks.refuse_pictures(spec.targets, None, names, known.heldout[0].phash)
            elif isinstance(spec, MixedSpec) and (listed := spec.reference.listed):
                chosen = picture_lists.list_pictures(listed)
                target_leaks.refuse_pictures(listed.folder, chosen, names, known.heldout[0].phash)
        except ModelError as error:
            raise CompareError(f"scorers.{name}: {error}") from None


def _embeddings(manifest: Manifest, scorer: str, known: Pool) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Names of the pictures of the test set with embeddings of a scorer, and these: float32 [pictures, dim]."""
    held = pa.array(known.test.sha256, pa.string())
    rows = (pq.read_table(path, columns=["uid", "sha256", "status"]) for path in manifest.row_files())
    pairs = pa.concat_tables(
        each.filter(pc.and_(pc.equal(each["status"], "ok"), pc.is_in(each["sha256"], held))) for each in rows
    )
    vectors = manifest.embeddings(scorer, pairs["uid"].combine_chunks()).pictures[:].astype(np.float32)
    there = ~np.isnan(vectors).any(axis=1)
    names = [f"the picture {sha256[:12]}" for sha256 in pairs["sha256"].filter(pa.array(there)).to_pylist()]
    return names, vectors[there]


def check_arm(arm: str, seed: int, targets: labels.Targets, classes: Sequence[str]) -> None:
    """The arm has a pair of every class, or different numbers, by the `targets` of its pairs."""
    if not len(targets):
        raise CompareError(
            f"the arm {arm!r} is empty: the manifest keeps no pair that can be trained on; loosen its filters"
        )
    for number, name in enumerate(classes):
        if number not in targets:
            raise CompareError(
                f"the arm {arm!r} has no pair of the class {name!r} in seed {seed}: "
                "take the class out of task.classes, or give it more pairs"
            )
    if targets.dtype.kind == "f":
        labels.check_varies(f"the arm {arm!r} in seed {seed}", targets)


def check_leaks(rows: Mapping[str, npt.NDArray[np.int64]], shows_test: npt.NDArray[np.bool_]) -> None:
    """No arm has a row of the pool that shows a picture of the test set: see `Experiment.shows_test`."""
    for arm, drawn in rows.items():
        if shows_test[drawn].any():
            raise CompareError(f"the arm {arm!r} trains on a picture of the test set; report this")
