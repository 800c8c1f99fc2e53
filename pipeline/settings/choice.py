"""Which pairs are kept: the tables `[[filters]]`, `[distinct]`, `[calibration]` and `[drift]`."""

from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.settings.fields import ExistingPath, Table


class FilterRow(Table):
    """A filter that only this source has."""

    name: str
    sql: str
    why: str = ""
    catches: tuple[str, ...] = Field((), description="labels of the pairs that it should drop, for calibration")


class Calibration(Table):
    """A labelled sample: pairs, each with a label that says what is wrong with it."""

    labels: ExistingPath | None = Field(
        None, description="a list with the columns url, caption, label and perhaps labeller"
    )
    good: tuple[str, ...] = Field(("clean",), min_length=1, description="labels of good pairs")


def _normalize(number: float) -> float:
    """The integer, if the number is whole: 6 and 6.0 are one radius and must give one manifest id."""
    return int(number) if number.is_integer() else number


class DistinctRow(Table):
    """The end of a recipe: keeps the best of each group of duplicates among the pairs that pass all filters."""

    radius: Annotated[float, AfterValidator(_normalize)] = Field(
        ge=0, le=64, description="bits of 64 in which the perceptual hashes may differ, or 1 - cosine; 0 for a column"
    )
    best_by: str = Field(description="SQL over the columns of rows; the highest value is kept")
    of: str = Field("duplicates", description="the scorer that found the neighbours, or a column such as sha256")


class DriftRow(Table):
    """How far the inputs of a new manifest may drift before retraining no longer starts automatically."""

    max_psi: float | None = Field(None, gt=0, description="of every column; 0.1 is a small change, 0.25 a large one")
