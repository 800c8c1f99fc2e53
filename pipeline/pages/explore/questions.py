"""What the page of `winnow explore` may ask about a manifest, and the answers, as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from filters import catalog
from filters.core import Distinct, Filter, Recipe
from pipeline.errors import QueryError, RecipeError
from pipeline.filtering.funnel import ending
from pipeline.filtering.thresholds import Comparison
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.pages.explore.rows import Pairs, Rows
from pipeline.pages.shown import Thumbnails, plain
from pipeline.review.labels import GOOD, KEY, WORDS, Labels
from pipeline.takedown.writing import writing
from pipeline.uids import uid

PAGE = 24
"""Pairs that are shown at a time."""

LARGE = 512
"""Pixels of the longer side of a picture that is looked at alone."""

_INNER = ("entry", "url_number", "shard", "member")
"""Columns that say where a pair is stored, and nothing about it."""


class Asked(BaseModel):
    """What the page sends. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FilterAsked(Asked):
    """A filter as the page has it."""

    name: str = Field(max_length=64)
    sql: str = Field(max_length=10_000)
    why: str = Field("", max_length=10_000)


class DistinctAsked(Asked):
    """What the recipe on the page ends in."""

    radius: int | float
    best_by: str = Field(max_length=10_000)
    of: str = Field("duplicates", max_length=64)


class RecipeAsked(Asked):
    """A recipe as the page has it."""

    filters: list[FilterAsked] = Field(max_length=63)
    distinct: DistinctAsked | None = None

    def made(self, name: str = "draft") -> Recipe:
        """Raises RecipeError for a bad or a double name, or a bad radius."""
        try:
            return Recipe(
                name,
                tuple(Filter(each.name, each.sql, each.why) for each in self.filters),
                Distinct(**self.distinct.model_dump()) if self.distinct else None,
            )
        except ValueError as error:
            raise RecipeError(str(error)) from None


class Draft(RecipeAsked):
    """The recipe on the page, and the one that it is compared with, if any."""

    other: RecipeAsked | None = None


class Named(RecipeAsked):
    """A recipe to keep."""

    name: str = Field(max_length=64)


class Look(Draft):
    """Which pairs to show."""

    show: Literal["all", "kept", "dropped", "edge", "only_this", "only_other"]
    edge: str = Field("", max_length=64, description="the filter whose line the pairs are near")
    text: str = Field("", max_length=1000)
    unlabelled: bool = False
    seed: int = Field(0, ge=0, lt=2**32)
    start: int = Field(0, ge=0)


class One(Draft):
    """One pair, by its place among the downloaded ones."""

    place: int = Field(ge=0)


class Said(Asked):
    """A label, or None to take it back."""

    place: int = Field(ge=0)
    label: Literal["match", "no match", "good", "bad picture"] | None


@dataclass(frozen=True)
class Offered:
    """A recipe to start from, and where it comes from."""

    whence: str
    recipe: Recipe


def offered(manifest: Manifest, own: Recipe) -> list[Offered]:
    """The recipe that was published, the source file's `own`, and every named one that the scores are there for."""
    found = [Offered("published", manifest.recipe)]
    for each in (
        Offered("of the source file", own),
        *(Offered("named", named) for named in catalog.recipes().values()),
    ):
        same = [known for known in found if replace(each.recipe, name=known.recipe.name) == known.recipe]
        if not same and manifest.fits(each.recipe):
            found.append(each)
    return found


class Explorer:
    """What can be asked about a manifest. Each method answers one question of the page, as JSON."""

    def __init__(self, rows: Rows, offered: Sequence[Offered]) -> None:
        self.rows, self.offered = rows, offered
        self._manifest, self._storage = rows.manifest, rows.manifest.storage
        self._labels = Labels(self._storage)
        self._thumbnails = Thumbnails(self._storage, self._manifest)
        self._labelled = set(rows.find(self._labels.table).tolist())

    def start(self) -> dict[str, Any]:
        """All that does not change while the page is open."""
        totals = self.rows.totals()
        return {
            "source": self._manifest.document["source"],
            "manifest": self._manifest.id,
            "pool": self.rows.pool,
            "axes": [asdict(axis) | {"high": axis.high, "totals": totals[axis.column]} for axis in self.rows.axes],
            "recipes": [
                {
                    "name": each.recipe.name,
                    "whence": each.whence,
                    "filters": [_told(f) for f in each.recipe.filters],
                    "distinct": each.recipe.distinct
                    and asdict(each.recipe.distinct) | asdict(ending(each.recipe.distinct)),
                }
                for each in self.offered
            ],
            "words": WORDS,
            "good": GOOD,
            "labels": self.labels(),
        }

    def funnel(self, draft: Draft) -> dict[str, Any]:
        """Counts, histograms and lines of the filters, and how they overlap with the other ones."""
        recipe = draft.made()
        steps = self.rows.funnel(recipe)
        kept = self.rows.kept(recipe)
        answer = {
            "kept": int(np.count_nonzero(kept)),
            "steps": [asdict(step) | {"handle": handle(step.sql)} for step in steps],
            "histograms": self.rows.histograms(kept),
            "lines": [asdict(line) for line in self.rows.lines(recipe)],
        }
        if draft.other is None:
            return answer
        other = draft.other.made("other")
        funnel = [asdict(step) for step in self.rows.funnel(other)]
        return answer | {"other": funnel, "sides": asdict(self.rows.sides(kept, self.rows.kept(other)))}

    def look(self, asked: Look) -> dict[str, Any]:
        """Some pairs, and how many there are of the kind."""
        chosen = self._chosen(asked)
        if asked.text.strip():
            chosen = chosen & self.rows.matching(asked.text.strip())
        if asked.unlabelled:
            chosen = chosen.copy()
            chosen[sorted(self._labelled)] = False
        notes: Mapping[int, str] = {}
        if asked.show == "edge":
            places, notes = self._edge(asked, chosen)
        else:
            places = self.rows.sample(chosen, asked.seed, asked.start, PAGE).tolist()
        kept = self.rows.kept(asked.made())
        rows = self.rows.read(places).to_pylist()
        return {
            "count": int(np.count_nonzero(chosen)),
            "pairs": [
                {
                    "place": place,
                    "shard": row["shard"],
                    "member": row["member"],
                    "caption": plain(row["caption"] or ""),
                    "url": plain(row["url"] or ""),
                    "kept": bool(kept[place]),
                    "note": notes.get(place, ""),
                }
                for place, row in zip(places, rows, strict=True)
            ],
        }

    def pair(self, asked: One) -> dict[str, Any]:
        """Everything about one pair, and what each filter says of it."""
        self._there(asked.place)
        names = [name for name in self._manifest.columns.names if name not in _INNER]
        row = self.rows.read([asked.place], names).to_pylist()[0]
        recipe = asked.made()
        told = [
            asdict(each) | {"says": {1: "passes", 0: "drops", -1: "no score"}[int(verdict.said[asked.place])]}
            for each, verdict in zip(recipe.filters, self.rows.verdicts(recipe), strict=True)
        ]
        if recipe.distinct and all(each["says"] == "passes" for each in told):  # it asks no other pair
            kept = self.rows.kept(recipe)[asked.place]
            told.append(asdict(ending(recipe.distinct)) | {"says": "passes" if kept else "drops"})
        return {
            "caption": plain(row.pop("caption") or "", 10_000),
            "url": plain(row.pop("url") or "", 10_000),
            "columns": [[name, _shown(value)] for name, value in row.items() if value is not None],
            "filters": told,
        }

    def picture(self, shard: int, member: str, large: bool) -> bytes | None:
        """A JPEG, as long as the tar is there."""
        return self._thumbnails.read(shard, member, **({"longer": LARGE} if large else {}))

    def label(self, said: Said) -> dict[str, Any]:
        """Keep what was said of a pair."""
        self._there(said.place)
        row = self.rows.read([said.place], ("uid", "url", "caption")).to_pylist()[0]
        if uid(row["url"], row["caption"]) != row["uid"]:
            raise QueryError("its address has a secret, which is not shown: label it in a list of your own")
        self._labels.put(row["url"], row["caption"], said.label)
        (self._labelled.discard if said.label is None else self._labelled.add)(said.place)
        return self.labels()

    def labels(self) -> dict[str, Any]:
        """How many pairs were labelled, and where the labels lie."""
        return {"counts": self._labels.counts, "file": str(self._storage.root / KEY)}

    def publish(self, asked: Named) -> dict[str, Any]:
        """Publish the manifest's pairs under this recipe. Raises BusyError while another run is at work."""
        recipe = asked.made(asked.name)
        with writing(self._storage):
            published = publish.republish(self._storage, recipe)
        return asdict(published)

    def _chosen(self, asked: Look) -> Pairs:
        if asked.show == "all":
            return np.ones(self.rows.pool, bool)
        if asked.show == "edge":
            filters = tuple(each for each in asked.made().filters if each.name != asked.edge)
            return self.rows.kept(Recipe("others", filters))
        kept = self.rows.kept(asked.made())
        if asked.show in ("kept", "dropped"):
            return kept if asked.show == "kept" else ~kept
        other = self.rows.kept(asked.other.made("other") if asked.other else Recipe("everything"))
        return kept & ~other if asked.show == "only_this" else other & ~kept

    def _edge(self, asked: Look, chosen: Pairs) -> tuple[list[int], dict[int, str]]:
        """The pairs that this one filter decides about, nearest to its line, with their values."""
        lines = [line for line in self.rows.lines(asked.made()) if line.filter == asked.edge]
        if not lines:
            raise RecipeError(f"filter {asked.edge!r} draws no line: it does not compare one score with one number")
        places = self.rows.nearest(chosen, lines[0].column, lines[0].value, PAGE).tolist()
        values = self.rows.read(places, (lines[0].column,))[lines[0].column].to_pylist()
        return places, {place: _shown(value) for place, value in zip(places, values, strict=True)}

    def _there(self, place: int) -> None:
        if place >= self.rows.pool:
            raise QueryError(f"there is no pair {place}: {self.rows.pool} were downloaded")


def handle(sql: str) -> dict[str, Any] | None:
    """Where a filter's one number stands in its SQL, so that a slider can move it; None if it has none."""
    plainly, share = Comparison.of(sql), Comparison.of_quantile(sql)
    found = plainly or share
    return asdict(found) | {"share": plainly is None, "keeps_high": found.keeps_high} if found else None


def toml(recipe: Recipe) -> str:
    """The recipe as a source file has it."""
    lines = [f"# recipe {recipe.name}: in place of `recipe`, all [[filters]] and [distinct] of the source file", ""]
    lines += [] if recipe.filters else ["filters = []", ""]
    for each in recipe.filters:
        lines += ["[[filters]]", f"name = {_quoted(each.name)}", f"sql = {_quoted(each.sql)}"]
        lines += [*([f"why = {_quoted(each.why)}"] if each.why else []), ""]
    if recipe.distinct:
        lines += [
            "[distinct]",
            f"radius = {recipe.distinct.radius}",
            f"best_by = {_quoted(recipe.distinct.best_by)}",
            f"of = {_quoted(recipe.distinct.of)}",
            "",
        ]
    return "\n".join(lines)


def _told(each: Filter) -> dict[str, Any]:
    return asdict(each) | {"handle": handle(each.sql)}


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else plain(str(value))
