"""Publishing from the page, in a process of its own: it can be stopped, and ends with the page."""

from filters.core import Recipe
from pipeline.errors import QueryError
from pipeline.manifest.log import commits
from pipeline.manifest.publish import Published, republish
from pipeline.process.calls import Limits, call
from pipeline.store.storage import Storage
from pipeline.takedown.writing import writing

DEADLINE = 600.0
"""Seconds. The lock of the source is held as long, and goes with the process."""

MEMORY = 64 << 30
"""Bytes of addresses; what DuckDB uses of them is half of the machine's memory at most."""


def publish(storage: Storage, recipe: Recipe, deadline: float = DEADLINE) -> Published:
    """Publish the newest manifest's rows under this recipe.

    Raises what `republish` raises, BusyError during another run, and QueryError at the deadline.
    """
    before = len(commits(storage))
    try:
        limits = Limits(deadline, MEMORY)
        published: Published = call("pipeline.pages.explore.publishing:run", storage, recipe, limits=limits)
    except TimeoutError:
        new = commits(storage)[before:]  # the deadline may come between the commit and the answer
        result = f"manifest {new[-1].id[:12]} is published" if new else "nothing was published"
        raise QueryError(f"stopped after {deadline:g} s, and {result}: `winnow publish` has no limit") from None
    return published


def run(storage: Storage, recipe: Recipe) -> Published:
    """In the process."""
    with writing(storage):
        return republish(storage, recipe)
