"""What a takedown did in one source."""

from dataclasses import dataclass


@dataclass
class Takedown:
    """Counts of what a request names, and of what left storage because of it.

    `names` counts what the request names. Those that fit no pair are `unmatched` (URLs without their secrets),
    `unknown` in number; they are blocked all the same. The others mean `pairs`. `rows` are rows of the ledger, then
    come pictures, rows of scores, rows of embeddings, and whole `objects`: parts of older manifests, features, pages.
    `manifest` is the newest one afterwards, `new` if the takedown published it, and `fault` the reason why it could not
    publish one.
    """

    names: int = 0
    pairs: int = 0
    unknown: int = 0
    unmatched: tuple[str, ...] = ()
    rows: int = 0
    pictures: int = 0
    scores: int = 0
    embeddings: int = 0
    objects: int = 0
    manifest: str | None = None
    new: bool = False
    fault: str | None = None
