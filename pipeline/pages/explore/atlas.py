"""The answers about the map of `winnow explore`: points and their colours, similar pairs, regions as filters."""

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.core import Recipe
from pipeline.errors import QueryError, RecipeError
from pipeline.manifest.columns import score_columns
from pipeline.manifest.embeddings import scorers_with_embeddings
from pipeline.pages.explore import map_job, regions
from pipeline.pages.explore.cards import cards
from pipeline.pages.explore.decisions import Decisions
from pipeline.pages.explore.recipe_text import near_table
from pipeline.pages.explore.requests import ColourRequest, NearRequest, RegionRequest, SimilarRequest
from pipeline.pages.explore.rows import Places, Rows
from pipeline.pages.explore.similar import PICTURE, TEXT, Similar, distinct

SHOWN = 12
"""Similar pairs, and pairs of a region, on the page."""

GRID = 65_535
"""Coordinates are whole numbers from 0 to this."""

MOST_NAMES = 9
"""Values of a text column with a colour of their own. All others share one."""


@dataclass(frozen=True)
class Plane:
    """The map of one scorer: the places of its pairs, their coordinates [pairs, 2] from 0 to `GRID`, and clusters."""

    places: Places
    points: npt.NDArray[np.int64]
    clusters: npt.NDArray[np.int64]


class Atlas:
    """Answers about the stored embeddings of one manifest. `folder` is where centres of regions are written."""

    def __init__(self, rows: Rows, decisions: Decisions, folder: Path | None) -> None:
        self._rows, self._decisions, self._folder = rows, decisions, folder
        self.scorers = scorers_with_embeddings(rows.manifest.storage, rows.manifest.stages)
        self._jobs: dict[str, map_job.MapJob] = {}
        self._drafted: dict[str, str] = {}
        """By name of a column that only this page has, the table of its scorer."""
        self._lock = threading.Lock()
        self._similar = lru_cache(4)(self._open)
        self._plane = lru_cache(4)(self._read)

    def map(self, scorer: str) -> dict[str, Any]:
        """The points of a scorer's map, or how far it is. The first call begins to compute it."""
        with self._lock:
            if scorer not in self._jobs:
                self._check(scorer)
                self._jobs[scorer] = map_job.MapJob(self._rows.manifest, scorer, self._rows.scratch)
        job = self._jobs[scorer]
        try:
            table = job.table()
        except Exception:
            del self._jobs[scorer]  # the next call tries again
            raise
        if table is None:
            done, total = job.progress()
            return {"done": done, "total": total, "method": job.method}
        plane = self._plane(scorer)
        return {
            "method": job.method,
            "sampled": len(plane.places) if self._rows.pool > map_job.SAMPLE else None,
            "places": plane.places.tolist(),
            "x": plane.points[:, 0].tolist(),
            "y": plane.points[:, 1].tolist(),
        }

    def colours(self, request: ColourRequest) -> dict[str, Any]:
        """A value for each point of the map, -1 for none: the number of a category, or 0 to 255 from low to high."""
        plane = self._plane(request.scorer)
        if request.by == "kept":
            kept = self._decisions.kept(request.recipe())[plane.places]
            return {"values": kept.astype(int).tolist(), "names": ["dropped", "kept"]}
        if request.by == "cluster":
            names = [f"cluster {number + 1}" for number in range(int(plane.clusters.max()) + 1)]
            return {"values": plane.clusters.tolist(), "names": names}
        if request.by not in self.columns:
            raise QueryError(f"there is no score {request.by!r} to colour by")
        axes = {axis.column: axis for axis in self._rows.axes}
        column = f'"{request.by}"'
        if request.by not in axes:
            return _categories(self._rows.column(f"{column}::VARCHAR").combine_chunks().take(pa.array(plane.places)))
        axis = axes[request.by]
        values = self._rows.column(f"coalesce({column}::DOUBLE, 'nan'::DOUBLE)").to_numpy()[plane.places]
        scaled = np.clip((values - axis.low) / (axis.high - axis.low or 1), 0, 1) * 255
        return {"values": np.nan_to_num(scaled, nan=-1).astype(int).tolist(), "low": axis.low, "high": axis.high}

    @property
    def columns(self) -> list[str]:
        """The columns that points can be coloured by: scores with a histogram, booleans and texts."""
        axes = [axis.column for axis in self._rows.axes]
        scores = score_columns(self._rows.manifest)
        others = [
            field.name
            for field in self._rows.manifest.columns
            if field.name in scores and (pa.types.is_boolean(field.type) or pa.types.is_string(field.type))
        ]
        return [*axes, *others]

    def similar(self, request: SimilarRequest) -> dict[str, Any]:
        """The pairs that are nearest to one of them, by picture and by text, nearest first."""
        if request.place >= self._rows.pool:
            raise QueryError(f"there is no pair {request.place}: {self._rows.pool} pairs were downloaded")
        kept = self._decisions.kept(request.recipe())
        answer: dict[str, Any] = {"pair": cards(self._rows, [request.place], kept, {})[0]}
        for side, name, known in ((PICTURE, "picture", "sha256"), (TEXT, "text", "caption")):
            found = self._similar(request.scorer).nearest(request.place, side, 8 * SHOWN)
            found = [each for each in found if each[0] != request.place]
            names = self._rows.read([place for place, _ in found], (known,))[known].to_pylist()
            chosen = distinct(found, names, SHOWN)
            notes = {place: f"cosine {cosine:.3f}" for place, cosine in chosen}
            answer[name] = cards(self._rows, [place for place, _ in chosen], kept, notes)
        return answer

    def region(self, request: RegionRequest) -> dict[str, Any]:
        """What a region of the map holds, and the rule that stands for it."""
        region, inside = self._fitted(request)
        kept = self._decisions.kept(request.recipe())
        rng = np.random.default_rng(0)
        shown = rng.permutation(inside)[:SHOWN].tolist()
        return {
            "count": len(inside),
            "kept": int(np.count_nonzero(kept[inside])),
            "centres": len(region.centres),
            "recall": region.recall,
            "precision": region.precision,
            "pairs": cards(self._rows, shown, kept, {}),
        }

    def near(self, request: NearRequest) -> dict[str, Any]:
        """Make a filter against what is near a region: write its centres, and add their column to this page.

        Raises QueryError for a name that is taken, or if the centres cannot be written.
        """
        scorer, column = f"near_{request.name}", f"near_{request.name}_inf"
        region, _ = self._fitted(request)
        with self._lock:
            if column in self._drafted or column in self._rows.manifest.columns.names:
                raise QueryError(f"there is a region {request.name!r} already: choose another name")
            path = self._write(region.centres, f"{scorer}.npy")
            self._rows.add(column, self._similar(request.scorer).similarity(region.centres))
            self._drafted[column] = near_table(scorer, request.scorer, path)
        return {
            "name": f"not-near-{request.name.replace('_', '-')}",
            "sql": f"{column} < {region.threshold:.4f}",
            "why": f"the picture is like those of the region {request.name}, which was drawn on the map",
            "scorer": scorer,
            "file": str(path),
        }

    def tables(self, recipe: Recipe) -> str:
        """The scorers of the columns that a recipe reads and only this page has, as tables of a source file."""
        return "\n".join(self._drafted[column] for column in self._unscored(recipe))

    def check_scored(self, recipe: Recipe) -> None:
        """Raises RecipeError if a recipe reads a column that only this page has: there are no scores to publish."""
        for column in self._unscored(recipe):
            scorer, source = column.removesuffix("_inf"), self._rows.manifest.source
            raise RecipeError(
                f"{column} is on this page only: copy the TOML into the source file, run "
                f"`winnow score {source} --scorer {scorer}`, and publish then"
            )

    def close(self) -> None:
        """End what computes in the background."""
        for job in self._jobs.values():
            job.close()

    def _unscored(self, recipe: Recipe) -> list[str]:
        return [column for column in self._drafted if any(column in each.sql for each in recipe.filters)]

    def _check(self, scorer: str) -> None:
        if scorer not in self.scorers:
            raise QueryError(f"no scorer {scorer!r} has stored embeddings: a map needs a clip or recorded scorer")

    def _fitted(self, request: RegionRequest) -> tuple[regions.Region, Places]:
        plane = self._plane(request.scorer)
        mask = np.isin(plane.places, np.array(request.places, np.int64))
        if not mask.any():
            raise QueryError("no pair is inside: draw around some points")
        if mask.all():
            raise QueryError("all pairs are inside: draw around fewer points, or zoom in")
        vectors = self._similar(request.scorer).pictures(plane.places)
        return regions.fit(vectors, mask), plane.places[mask]

    def _write(self, centres: npt.NDArray[np.float32], name: str) -> Path:
        if self._folder is None:
            raise QueryError("the folder of the source file is not known: centres cannot be written")
        path = self._folder / name
        try:
            with path.open("xb") as file:
                np.save(file, centres)
        except FileExistsError:
            raise QueryError(f"{path} exists already: choose another name") from None
        except OSError as error:
            raise QueryError(f"{path} cannot be written: {error.strerror}") from None
        return path

    def _open(self, scorer: str) -> Similar:
        self._check(scorer)
        return Similar(self._rows, scorer)

    def _read(self, scorer: str) -> Plane:
        job = self._jobs.get(scorer)
        table = job.table() if job else None
        if table is None:
            raise QueryError("the map is not ready yet")
        at = pc.index_in(table["uid"], self._rows.column("uid").combine_chunks()).combine_chunks()
        there = at.is_valid()
        table, places = table.filter(there), at.drop_null().to_numpy()
        points = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1).astype(np.float64)
        low = points.min(axis=0)
        reach = float((points.max(axis=0) - low).max()) or 1.0
        return Plane(
            places.astype(np.int64), ((points - low) / reach * GRID).astype(np.int64), table["cluster"].to_numpy()
        )


def _categories(values: pa.Array) -> dict[str, Any]:
    """The most frequent values by name, and the rest as the last one."""
    counted = sorted(
        pc.value_counts(values.drop_null()).to_pylist(), key=lambda each: (-each["counts"], each["values"])
    )
    names = [each["values"] for each in counted[:MOST_NAMES]]
    found = pc.fill_null(pc.index_in(values, pa.array(names, pa.string())), -2).to_numpy(zero_copy_only=False)
    found = np.where(found == -2, np.where(values.is_valid().to_numpy(zero_copy_only=False), len(names), -1), found)
    return {"values": found.tolist(), "names": [*names, "other"] if len(counted) > MOST_NAMES else names}
