"""The mapping from filters to the bits of a verdict, for all code that writes or reads verdicts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from filters.core import Recipe
from pipeline.store import duck


@dataclass(frozen=True)
class Reasons:
    """The reasons to drop a pair under a recipe: the names of its filters, then "distinct". Bit i is reason i."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Recipe) -> "Reasons":
        """The reasons of a recipe, in its order."""
        return cls(tuple(recipe.reasons))

    def bit(self, name: str) -> int:
        """The integer with only the bit of this reason set."""
        return 1 << self.names.index(name)

    def mask(self, names: Iterable[str], test: Callable[[str], str]) -> str:
        """SQL for a UBIGINT with the bits of the `names` for which the SQL of `test` is true."""
        bits = (f"CASE WHEN {test(name)} THEN {self.bit(name)}::UBIGINT ELSE 0 END" for name in names)
        return " | ".join(["0::UBIGINT", *bits])

    def listed(self, bits: str) -> str:
        """SQL for the list of names whose bit is set in the SQL integer `bits`, in the recipe's order."""
        return where(self.names, lambda name: f"({bits}) & {self.bit(name)}::UBIGINT <> 0")


def where(names: Iterable[str], test: Callable[[str], str]) -> str:
    """SQL for the list of the names for which the SQL of `test` is true."""
    each = ", ".join(f"CASE WHEN {test(name)} THEN {duck.literal(name)} END" for name in names)
    return f"list_filter([{each}]::VARCHAR[], lambda name: name IS NOT NULL)"
