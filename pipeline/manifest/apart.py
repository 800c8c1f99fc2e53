"""Filters that may take much time or memory, in a process of their own: the process is stopped, not the command.

DuckDB's limit of memory does not count every text and list that a function or an aggregate builds. Plain filters, which
only compare what is there, are evaluated in the command itself. A `progress` is that of a selection, which is slow.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from filters.core import Recipe
from pipeline.errors import RecipeError
from pipeline.filtering import constants, funnel
from pipeline.ledger.ledger import Ledger
from pipeline.manifest import publish as publishing
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.publish import Published
from pipeline.process.calls import Limits, ProcessError, call
from pipeline.progress import StepProgress, silent_step
from pipeline.scoring.plan import Plan
from pipeline.store.storage import Storage

Result = TypeVar("Result")

DEADLINE = 7200.0
"""Seconds. One evaluation of the filters has an hour (`predicates.DEADLINE`)."""

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + (256 << 20) * (os.cpu_count() or 1)
"""Bytes of addresses: the machine's memory, and what each thread reserves without using it."""


def compare(
    storage: Storage, manifest: str, recipes: Sequence[Recipe], progress: StepProgress = silent_step
) -> funnel.Comparison:
    """As `Manifest.compare` of the manifest with this id. Raises RecipeError past a limit, too."""
    return _run(compare_at, recipes, progress, storage, manifest, recipes)


def republish(storage: Storage, recipe: Recipe, progress: StepProgress = silent_step) -> Published:
    """As `publish.republish`; the caller has the lock. Raises RecipeError past a limit, too."""
    return _run(publishing.republish, [recipe], progress, storage, recipe)


def publish(
    plan: Plan,
    storage: Storage,
    ledger: Ledger,
    quarantined: Mapping[int, str],
    progress: StepProgress = silent_step,
) -> Published:
    """As `publish.publish`; the caller has the lock. Raises RecipeError past a limit, too."""
    return _run(publishing.publish, [plan.source.own_recipe], progress, plan, storage, ledger, dict(quarantined))


def compare_at(
    storage: Storage, manifest: str, recipes: Sequence[Recipe], progress: StepProgress = silent_step
) -> funnel.Comparison:
    """In the process."""
    return Manifest.open(storage, manifest).compare(recipes, progress)


def _run(work: Callable[..., Result], recipes: Sequence[Recipe], progress: StepProgress, *arguments: Any) -> Result:
    """The result of a function, called in a process of its own unless all filters are plain."""
    typed = [each.sql for recipe in recipes for each in recipe.filters]
    typed += [recipe.distinct.best_by for recipe in recipes if recipe.distinct]
    typed += [sql for recipe in recipes if recipe.selection for sql in recipe.selection.values.values()]
    if all(map(constants.is_plain, typed)):
        return work(*arguments, progress=progress)
    named = ", ".join(repr(recipe.name) for recipe in recipes)
    try:
        limits = Limits(DEADLINE, MEMORY)
        result: Result = call(f"{work.__module__}:{work.__name__}", *arguments, limits=limits, progress=progress)
    except MemoryError:
        raise RecipeError(f"the filters of recipe {named} need more memory than there is") from None
    except TimeoutError as error:
        raise RecipeError(f"the filters of recipe {named} were {error}") from None
    except ProcessError as error:  # the kernel may kill it before its own limit does
        raise RecipeError(f"recipe {named}: {error}") from None
    return result
