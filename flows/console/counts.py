"""Counts with their names: where every row went, and what a takedown removed."""

from collections.abc import Mapping
from dataclasses import asdict

from rich.console import Group
from rich.text import Text

from pipeline.manifest.document import Counts
from pipeline.takedown.result import Takedown


def rows(source: str, counts: Counts) -> Group:
    """Where every row of the list went."""
    named = {"  of them unscored" if name == "unscored" else name: count for name, count in asdict(counts).items()}
    return Group(Text(f"{source}: where every row went", "bold"), _list(named))


def takedown(source: str, done: Takedown) -> Group:
    """What a takedown removed, or would remove, from one source."""
    named = {
        "names in the list": done.names,
        "names that fit no pair": done.unknown,
        "pairs that are meant": done.pairs,
        "rows of the ledger": done.rows,
        "pictures": done.pictures,
        "rows of scores": done.scores,
        "rows of embeddings": done.embeddings,
        "other objects": done.objects,
    }
    manifest = f"manifest {done.manifest}" if done.manifest else "nothing was published"
    return Group(Text(f"{source}: what was taken down", "bold"), _list(named), Text(manifest))


def _list(counts: Mapping[str, int]) -> Text:
    names, numbers = max(map(len, counts)), max(len(f"{count:,}") for count in counts.values())
    return Text("\n".join(f"{name:<{names}}  {count:>{numbers},}" for name, count in counts.items()))
