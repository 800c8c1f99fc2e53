"""Weights that an installed package carries: where they are, and their digest. The package is not imported."""

from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.store.digests import file_digest


def path(module: str, name: str) -> Path:
    """The file `name`, relative to the folder of an installed module. Raises ModelError if there is none."""
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / name
    if not file.is_file():
        raise ModelError(f"{module} {version(module)} has no {file.name}: install the version of requirements.lock")
    return file


@cache
def digest(file: Path) -> str:
    """The digest of a file of weights, read once in a process."""
    return file_digest(file)
