"""The settings and the checks that all scorers with target pictures share."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from pipeline.images import picture_lists, picture_sets
from pipeline.scorers import gathering, target_leaks, targets
from pipeline.scorers.spec import PoolSpec, Spec
from pipeline.settings.fields import ExistingPath
from pipeline.settings.task import TestSet


class TargetSet(Spec):
    """Target pictures, none of which may be a test picture: what is chosen after them would have seen the answers."""

    of: str = Field("clip", description="the scorer whose embeddings it reads")
    targets: ExistingPath = Field(
        description="pictures (a folder, a tar, or Parquet with a column image), or their embeddings as .npy [n, dim]"
    )
    test: TestSet | None = Field(None, description="pictures that no target may be; unset, those of task.test")

    @property
    def are_vectors(self) -> bool:
        """Whether the targets are embeddings."""
        return self.targets.suffix == targets.VECTORS

    def check_targets(self, of: Spec) -> None:
        """Raises ModelError for targets that are none, that the scorer `of` cannot encode, or that are test pictures.

        Embeddings are compared with test pictures by `check_embeddings`.
        """
        targets.check(self.targets, self.of, of)
        if not self.are_vectors:
            target_leaks.refuse(self.targets, self.test)

    def check_embeddings(self, of: Spec) -> None:
        """Raises ModelError for targets that are embeddings of test pictures. May load the model of the scorer `of`."""
        if self.are_vectors and self.test is not None:
            target_leaks.refuse_embeddings(self.targets, self.test, of)

    def tested(self) -> Mapping[str, Any]:
        """What the identity of a scorer has of the test pictures."""
        if self.test is None:
            return {}
        pictures = picture_sets.digest(self.test.folder, picture_lists.list_pictures(self.test))
        return {"test": [pictures, target_leaks.VERSION]}


class PoolTargetSet(TargetSet, PoolSpec):
    """The same for scorers that compare the whole pool with the targets."""

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer whose embeddings it reads."""
        return (self.of,)

    @property
    def model_of(self) -> str | None:
        """The scorer whose model encodes target pictures; None for targets that are embeddings already."""
        return None if self.are_vectors else self.of

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` stores no embeddings, ModelError as `check_targets`."""
        gathering.check(scorers, self.of)
        self.check_targets(scorers[self.of])
