"""Which bit of a verdict stands for which filter. Everything that writes or reads verdicts takes the rule from here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from filters.core import Recipe
from pipeline.store import duck


@dataclass(frozen=True)
class Reasons:
    """The reasons for which a recipe drops a pair: the names of its filters, then "distinct". Bit i is number i."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Recipe) -> "Reasons":
        """The reasons of a recipe, in its order."""
        return cls(tuple(recipe.reasons))

    def bit(self, name: str) -> int:
        """The integer that has only the bit of this reason."""
        return 1 << self.names.index(name)

    def mask(self, names: Iterable[str], test: Callable[[str], str]) -> str:
        """SQL for an integer, UBIGINT, in which the bits of those `names` are set whose `test`, SQL, is true."""
        bits = (f"CASE WHEN {test(name)} THEN {self.bit(name)}::UBIGINT ELSE 0 END" for name in names)
        return " | ".join(["0::UBIGINT", *bits])

    def listed(self, bits: str) -> str:
        """SQL for the list of the names whose bit is set in the SQL integer `bits`, in the recipe's order."""
        return where(self.names, lambda name: f"({bits}) & {self.bit(name)}::UBIGINT <> 0")


def where(names: Iterable[str], test: Callable[[str], str]) -> str:
    """SQL for the list of those names whose `test`, SQL, is true."""
    each = ", ".join(f"CASE WHEN {test(name)} THEN {duck.literal(name)} END" for name in names)
    return f"list_filter([{each}]::VARCHAR[], lambda name: name IS NOT NULL)"
