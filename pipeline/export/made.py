"""How a manifest was made, for the card of an export: versions, the download, the scorers and their models."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.export.markdown import code, table, text
from pipeline.manifest.chain import remarks
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.scorers import mixture_file

_SCORES = "scores/"


def made(manifest: Manifest) -> Iterator[str]:
    """Lines of Markdown."""
    facts = manifest.card
    versions, shards = facts["versions"], facts["made_by"].get("shards", {})
    day = published_on(manifest)
    yield f"- winnow {text(str(versions['winnow']))} published manifest {code(manifest.id)} of the source "
    yield f"  {code(manifest.source)}{f' on {day}' if day else ''}."
    if "image_size" in shards:
        yield f"- Pictures are stored as JPEG of quality {shards['quality']}, their shorter side at most "
        yield f"  {shards['image_size']} pixels ({text(str(shards['resample']))})."
    yield f"- Versions: {text(', '.join(f'{name} {number}' for name, number in versions.items()))}."
    yield from (f"- {text(line)}." for line in remarks(facts.get("trainings", {}), manifest.source))
    yield from (f"- {text(line)}." for line in mixture_file.remarks(facts.get("mixtures", {})))
    scorers = {name: each for name, each in facts["made_by"].items() if name.startswith(_SCORES)}
    if scorers:
        header = ("scorer", "kind", "model", "sha256 of its weights", "computed with")
        yield from ["", *table(header, (_scorer(name, each) for name, each in scorers.items()))]


def published_on(manifest: Manifest) -> str | None:
    """The day in UTC when it was published last, as 2026-11-27; None if its commit is gone."""
    days = [commit.time[:10] for commit in commits(manifest.storage) if commit.id == manifest.id]
    return days[-1] if days else None


def _scorer(name: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    model = str(facts.get("model", ""))
    weights = facts.get("weights")
    place = [str(facts[key]) for key in ("device", "precision") if key in facts]
    return (
        code(name.removeprefix(_SCORES)),
        text(str(facts.get("kind", ""))),
        "a local folder" if model == "local-dir:" else code(model),
        code(weights) if isinstance(weights, str) else "",
        text(", ".join(place)),
    )
