"""Which engine runs a source: the one place that chooses."""

from typing import get_args

from pipeline.engine.engine import Engine, LocalEngine
from pipeline.errors import SourceError
from pipeline.models import device
from pipeline.settings.engine import EngineName
from pipeline.sources.source import Source
from pipeline.store.storage import Storage


def choose(source: Source, storage: Storage, name: str | None = None, address: str | None = None) -> Engine:
    """The engine of the source file, or the one of this name, with an address of its Ray cluster.

    An address alone means Ray. Raises SourceError for another name.
    """
    name = name or ("ray" if address else source.engine)
    if name not in (known := get_args(EngineName)):
        raise SourceError(f"there is no engine {name!r}: take {' or '.join(known)}")
    if name == "local":
        return LocalEngine(source, storage, device.visible_gpus())
    from pipeline.engine.ray_engine import RayEngine

    return RayEngine(source, storage, address)
