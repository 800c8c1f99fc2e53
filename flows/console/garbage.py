"""What `winnow gc` removes, or would remove."""

from collections.abc import Mapping

from rich.console import Group
from rich.text import Text

from flows.console.layout import Column, Table
from flows.console.units import size
from pipeline.upkeep.gc import Collected


def table(source: str, found: Mapping[str, Collected], applied: bool) -> Group:
    """A row for each place, by the folder of its store, then the manifests that leave the log, and the total."""
    made = Table(
        (Column("place", "name"), Column("objects"), Column("bytes"), Column("why it is not needed", "text")),
        f"{source}: {'removed' if applied else 'not needed'}",
    )
    for folder, done in found.items():
        for each in done.removals:
            made.add(f"{folder}{each.what}", f"{each.objects:,}", f"{each.bytes:,}", each.why)
    objects, total = (sum(getattr(each, name) for each in found.values()) for name in ("objects", "bytes"))
    if not objects:
        return Group(Text(f"{source}: everything is needed"))
    made.add("all", f"{objects:,}", f"{total:,}", size(total), rule=True)
    dropped = [
        Text(f"{folder}manifests that {'were' if applied else 'would be'} removed: {', '.join(done.dropped)}")
        for folder, done in found.items()
        if done.dropped
    ]
    return Group(made, *dropped)
