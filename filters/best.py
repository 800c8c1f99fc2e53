"""Filters that keep the best share of any score: of the whole pool, or of the pairs that earlier filters keep.

The two differ. An earlier filter may drop nearly all of the pool's best 30 %. The best 30 % of the pairs that it keeps
are always 30 % of them, even if their scores are low.
"""

from filters.core import REST, Filter


def of_pool(name: str, column: str, share: float, why: str) -> Filter:
    """Keep the best `share` (0 to 1) of all pairs that have a value, including pairs that other filters drop.

    The highest values are the best. `column` is a column of `rows`, or SQL over them. Raises ValueError unless
    0 < `share` <= 1.
    """
    return Filter(name, f"{column} >= (SELECT quantile_cont({column}, {_without(share)}) FROM rows)", why)


def of_rest(name: str, column: str, share: float, why: str) -> Filter:
    """Keep the best `share` (0 to 1) of the pairs that pass the filters before this one in the recipe.

    The highest values are the best. At the end of a recipe it is a quantile of the pairs that pass all other filters.
    Raises ValueError unless 0 < `share` <= 1.
    """
    return Filter(name, f"{column} >= (SELECT quantile_cont({column}, {_without(share)}) FROM rows WHERE {REST})", why)


def _without(share: float) -> str:
    if not 0 < share <= 1:
        raise ValueError(f"a share must be more than 0 and at most 1, not {share}")
    return f"{1 - share:.6g}"
