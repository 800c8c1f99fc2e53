"""Which engine runs a source: the one place that chooses."""

from pipeline.engine.engine import Engine, LocalEngine
from pipeline.models import device
from pipeline.sources.source import Source
from pipeline.store.storage import Storage


def choose(source: Source, storage: Storage, name: str | None = None, address: str | None = None) -> Engine:
    """The engine of the source file, or the one of this name, with an address of its Ray cluster.

    An address alone means Ray.
    """
    if (name or ("ray" if address else source.engine)) == "local":
        return LocalEngine(source, storage, device.visible_gpus())
    from pipeline.engine.ray_engine import RayEngine

    return RayEngine(source, storage, address)
