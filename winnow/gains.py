"""What a manifest is worth: `winnow train` in this process, and its result as a table and a plot."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.demo import world
from pipeline.errors import SourceError
from pipeline.process.scratch import temporary_folder
from pipeline.progress import Progress, silent
from winnow import display
from winnow.display import Cell
from winnow.manifests import Manifest
from winnow.sources import Source
from winnow.tables import Form, as_form

_DIFFERENCE = pa.schema(
    {
        "learner": pa.string(),
        "difference": pa.string(),
        "mean": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "clear": pa.bool_(),
        "sentence": pa.string(),
    }
)


@dataclass(frozen=True)
class Gain:
    """The scores of learners on kept, all and random pairs. In a notebook it shows itself as a table and a plot.

    `found` is the whole result, as `winnow train --json` prints it.
    """

    found: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """The main score, such as "macro-F1"."""
        return str(self.found["metrics"][0][1])

    def differences(self, form: Form = "arrow") -> Any:
        """A row for each learner and difference: its mean over seeds, and the interval from low to high.

        `clear` is true where the interval leaves out 0. Filters that were left out are differences, too.
        """
        from training.studies.summary import by_learner

        rows = [
            {
                "learner": learner,
                "difference": each["name"],
                "mean": each["difference"],
                **{name: each[name] for name in ("low", "high", "clear", "sentence")},
            }
            for learner, differences in by_learner(self.found)
            for each in differences
        ]
        return as_form(pa.Table.from_pylist(rows, _DIFFERENCE), form)

    def scores(self, form: Form = "arrow") -> Any:
        """A row for each learner and arm, plain and augmented: pairs, and mean and deviation of each score."""
        rows = [{"learner": learner["name"], **row} for learner in self.found["learners"] for row in learner["rows"]]
        return as_form(pa.Table.from_pylist(rows), form)

    def plot(self) -> str:
        """Every difference with its interval, as SVG."""
        from training.studies import plot

        with temporary_folder() as folder:
            path = Path(folder, "gain.svg")
            plot.forest(self.found, path)
            return path.read_text(encoding="utf-8")

    def _repr_html_(self) -> str:
        main = self.found["metrics"][0][0]
        rows = [
            (
                Cell(learner["name"]),
                Cell(row["arm"]),
                Cell({True: "augmented", False: "plain"}.get(row["augmented"], str(row["augmented"]))),
                Cell(f"{row['pairs_mean']:,.0f}"),
                Cell(f"{row[f'{main}_mean']:.3f} ({row[f'{main}_sd']:.3f})"),
            )
            for learner in self.found["learners"]
            for row in learner["rows"]
        ]
        title = f"{self.metric} (sd) on {self.found['test']['says']}, {self.found['budget']['seeds']} seeds"
        drawn = self.plot()
        columns = ("learner", "arm", "pictures", "pairs", self.metric)
        return display.table(title, columns, rows) + drawn[drawn.index("<svg") :]

    def __repr__(self) -> str:
        return (
            f"Gain({self.found['source']!r}, {self.found['manifest'][:12]!r}, {len(self.found['learners'])} learners)"
        )


def train(
    manifest: Manifest | Source | str | PathLike[str],
    root: str | PathLike[str] = "data",
    recipe: str | None = None,
    progress: Progress = silent,
) -> Gain:
    """Measure what a manifest is worth: train on the kept pairs, on all pairs, and on a random subset of equal size.

    The same as `winnow train`, without a Prefect server and without a report. Trains nothing twice: a call that was
    stopped resumes. `recipe` is the name of another recipe than the published one. `progress` is called with a step,
    how much of it is done, and how much there is.

    Raises SourceError for a source without a task, CompareError for what cannot be compared fairly, TrainingError for
    a training that diverges.
    """
    from training.studies import gain

    opened = manifest if isinstance(manifest, Manifest) else Manifest.open(manifest, root=root)
    source = opened.origin
    if source.described.task is None:
        raise SourceError(f"{source.name}: there is no [task] to measure the gain on")
    if recipe:
        opened.published.check(*source.recipe(recipe).filters)
    with world.served(source.described, source.storage, partial(progress, "demo")) as served:
        return Gain(gain.measure(served, source.storage, opened.id, progress, recipe))
