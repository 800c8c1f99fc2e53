"""The answers to the requests of the page of `winnow explore`, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from filters import catalog
from filters.core import DISTINCT, SELECTION, Filter, Recipe
from pipeline.errors import QueryError, RecipeError
from pipeline.filtering.funnel import endings
from pipeline.manifest.document import selection_json
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.shown_pictures import ShownPictures
from pipeline.pages.explore import publishing
from pipeline.pages.explore.atlas import Atlas
from pipeline.pages.explore.cards import cards
from pipeline.pages.explore.decisions import Decisions
from pipeline.pages.explore.histograms import Histograms
from pipeline.pages.explore.recipe_text import handle, toml
from pipeline.pages.explore.requests import (
    Draft,
    LabelRequest,
    NamedRecipe,
    NearRequest,
    PairRequest,
    PairsRequest,
)
from pipeline.pages.explore.rows import Pairs, Rows
from pipeline.pages.untrusted import THUMBNAIL, Thumbnails, plain
from pipeline.review.labels import EXPLORE, GOOD, KEY, WORDS, Labels
from pipeline.uids import uid

PAGE = 24
"""Pairs on a page."""

LARGE = 512
"""Pixels of the longer side of a large picture."""

ANSWERS = {1: "passes", 0: "drops", -1: "no score"}
"""The words for the answers of a verdict."""

_INNER = ("entry", "url_number", "shard", "member")
"""Columns about the storage of a pair."""


@dataclass(frozen=True)
class Choice:
    """A recipe to start from, and where it comes from."""

    origin: str
    recipe: Recipe


def choices(manifest: Manifest, own: Recipe) -> list[Choice]:
    """The published recipe, the source file's `own`, and every named recipe that the manifest has the scores for."""
    found = [Choice("published", manifest.recipe)]
    named = (Choice("named", recipe) for recipe in catalog.recipes().values())
    for each in (Choice("of the source file", own), *named):
        same = [other for other in found if replace(each.recipe, name=other.recipe.name) == other.recipe]
        if not same and manifest.fits(each.recipe):
            found.append(each)
    return found


class Explorer:
    """Answers about one manifest. Each method answers one request."""

    def __init__(
        self,
        rows: Rows,
        choices: Sequence[Choice],
        labeller: str = EXPLORE,
        pictures: ShownPictures | None = None,
        folder: Path | None = None,
    ) -> None:
        """`pictures` are those of the manifest, by default with unsafe ones veiled. `folder` is that of the source
        file, where centres of regions are written; None: they cannot be.
        """
        self._rows, self._choices, self._labeller = rows, choices, labeller
        self._decisions, self._histograms = Decisions(rows), Histograms(rows)
        self.atlas = Atlas(rows, self._decisions, folder)
        self._manifest, self._storage = rows.manifest, rows.manifest.storage
        self._labels = Labels(self._storage)
        self._thumbnails = Thumbnails(pictures or ShownPictures.safe(self._manifest))
        mine = self._labels.table.filter(pc.field("labeller") == labeller)
        self._labelled = set(rows.find(mine).tolist())

    def start(self) -> dict[str, Any]:
        """All that does not change while the page is open."""
        return {
            "source": self._manifest.source,
            "manifest": self._manifest.id,
            "pool": self._rows.pool,
            "axes": self._axes(),
            "recipes": [_choice(each) for each in self._choices],
            "words": WORDS,
            "good": GOOD,
            "labels": self.labels(),
            "maps": self.atlas.scorers,
            "colours": self.atlas.columns,
        }

    def near(self, request: NearRequest) -> dict[str, Any]:
        """A filter against what is near a region of the map, and the axes with that of its column."""
        made = self.atlas.near(request)
        self._histograms = Histograms(self._rows)
        return made | {"handle": handle(made["sql"]), "axes": self._axes()}

    def toml(self, request: NamedRecipe) -> dict[str, str]:
        """The recipe as tables of a source file, with the scorers that only this page has."""
        recipe = request.recipe(request.name)
        return {"toml": self.atlas.tables(recipe) + toml(recipe)}

    def funnel(self, draft: Draft) -> dict[str, Any]:
        """The funnel, histograms and thresholds of a recipe, and its overlap with the other recipe."""
        recipe = draft.recipe()
        steps = self._decisions.funnel(recipe)
        kept = self._decisions.kept(recipe)
        answer = {
            "kept": int(np.count_nonzero(kept)),
            "steps": [asdict(step) | {"handle": handle(step.sql)} for step in steps],
            "histograms": self._histograms.of(kept),
            "lines": [asdict(line) for line in self._decisions.lines(recipe)],
        }
        if draft.other is None:
            return answer
        other = draft.other.recipe("other")
        funnel = [asdict(step) for step in self._decisions.funnel(other)]
        return answer | {"other": funnel, "sides": asdict(self._decisions.sides(kept, self._decisions.kept(other)))}

    def pairs(self, request: PairsRequest) -> dict[str, Any]:
        """A page of pairs, and the number of all pairs like them."""
        chosen = self._chosen(request)
        if request.text.strip():
            chosen = chosen & self._rows.matching(request.text.strip())
        if request.unlabelled:
            chosen = chosen.copy()
            chosen[sorted(self._labelled)] = False
        notes: Mapping[int, str] = {}
        if request.show == "edge":
            places, notes = self._edge(request, chosen)
        else:
            places = self._rows.sample(chosen, request.seed, request.start, PAGE).tolist()
        kept = self._decisions.kept(request.recipe())
        return {"count": int(np.count_nonzero(chosen)), "pairs": cards(self._rows, places, kept, notes)}

    def pair(self, request: PairRequest) -> dict[str, Any]:
        """All columns of one pair, and the answer of each filter. Raises QueryError for a place that is not there."""
        self._check_place(request.place)
        names = [name for name in self._manifest.columns.names if name not in _INNER]
        row = self._rows.read([request.place], names).to_pylist()[0]
        recipe = request.recipe()
        answers = [
            asdict(each) | {"says": ANSWERS[int(verdict.answers[request.place])]}
            for each, verdict in zip(recipe.filters, self._decisions.verdicts(recipe), strict=True)
        ]
        for last in endings(recipe):
            # It decides only among the pairs that pass everything before it.
            if all(each["says"] == "passes" for each in answers):
                until = replace(recipe, selection=None) if last.name == DISTINCT else recipe
                kept = self._decisions.kept(until)[request.place]
                answers.append(asdict(last) | {"says": "passes" if kept else "drops"})
        return {
            "caption": plain(row.pop("caption") or "", 10_000),
            "url": plain(row.pop("url") or "", 10_000),
            "columns": [[name, _shown(value)] for name, value in row.items() if value is not None],
            "filters": answers,
        }

    def picture(self, shard: int, member: str, large: bool) -> bytes | None:
        """A JPEG; None if the stored picture is gone."""
        return self._thumbnails.read(shard, member, LARGE if large else THUMBNAIL)

    def label(self, request: LabelRequest) -> dict[str, Any]:
        """Store or remove the label of a pair, and give `labels`. Raises QueryError for a URL with a hidden secret."""
        self._check_place(request.place)
        row = self._rows.read([request.place], ("uid", "url", "caption")).to_pylist()[0]
        if uid(row["url"], row["caption"]) != row["uid"]:
            raise QueryError("this URL has a secret, which is hidden here: label the pair in a list of your own")
        self._labels.put(row["url"], row["caption"], request.label, self._labeller)
        if request.label is None:
            self._labelled.discard(request.place)
        else:
            self._labelled.add(request.place)
        return self.labels()

    def labels(self) -> dict[str, Any]:
        """The number of labelled pairs by label, and the path of the file of labels."""
        return {"counts": self._labels.counts(self._labeller), "file": self._storage.address(KEY)}

    def publish(self, request: NamedRecipe) -> dict[str, Any]:
        """Publish the manifest's pairs under this recipe.

        Raises BusyError during another run, and RecipeError for a column that only this page has.
        """
        recipe = request.recipe(request.name)
        self.atlas.check_scored(recipe)
        return asdict(publishing.publish(self._storage, recipe))

    def _axes(self) -> list[dict[str, Any]]:
        totals = self._histograms.totals()
        return [asdict(axis) | {"high": axis.high, "totals": totals[axis.column]} for axis in self._rows.axes]

    def _chosen(self, request: PairsRequest) -> Pairs:
        if request.show == "all":
            return self._rows.all()
        if request.show == "edge":
            filters = tuple(each for each in request.recipe().filters if each.name != request.edge)
            return self._decisions.kept(Recipe("others", filters))
        kept = self._decisions.kept(request.recipe())
        if request.show in ("kept", "dropped"):
            return kept if request.show == "kept" else ~kept
        other = self._decisions.kept(request.other.recipe("other") if request.other else Recipe("everything"))
        return kept & ~other if request.show == "only_this" else other & ~kept

    def _edge(self, request: PairsRequest, chosen: Pairs) -> tuple[list[int], dict[int, str]]:
        """The pairs that this one filter decides about, nearest to its threshold, with their values."""
        lines = [line for line in self._decisions.lines(request.recipe()) if line.filter == request.edge]
        if not lines:
            raise RecipeError(f"filter {request.edge!r} has no threshold: it is no comparison of a score with a number")
        places = self._rows.nearest(chosen, lines[0].column, lines[0].value, PAGE).tolist()
        values = self._rows.values(lines[0].column)[places].tolist()
        return places, {place: _shown(value) for place, value in zip(places, values, strict=True)}

    def _check_place(self, place: int) -> None:
        if place >= self._rows.pool:
            raise QueryError(f"there is no pair {place}: {self._rows.pool} pairs were downloaded")


def _choice(choice: Choice) -> dict[str, Any]:
    last, steps = choice.recipe, {each.name: asdict(each) for each in endings(choice.recipe)}
    return {
        "name": choice.recipe.name,
        "origin": choice.origin,
        "filters": [_filter(each) for each in choice.recipe.filters],
        "distinct": asdict(last.distinct) | steps[DISTINCT] if last.distinct else None,
        "selection": {"settings": selection_json(last.selection)} | steps[SELECTION] if last.selection else None,
    }


def _filter(each: Filter) -> dict[str, Any]:
    return asdict(each) | {"handle": handle(each.sql)}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.6g}"
    return plain(str(value))
