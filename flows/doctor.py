"""Checks of this machine: what is missing or wrong, and the command that fixes it. Changes nothing, calls no host."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pipeline.extras import EXTRAS, command, missing
from pipeline.store.places import BucketUrl, Place

FREE = 20 * 2**30
"""Free bytes that a run of a million pairs needs at least."""


@dataclass(frozen=True)
class Finding:
    """The result of one check. `fix` is the command that fixes it, or a sentence; empty if all is well.

    A note hinders some runs, such as weights that are not downloaded yet. A fault hinders every run.
    """

    what: str
    state: Literal["ok", "note", "fault"]
    found: str
    fix: str = ""


def examine(root: Place) -> Iterator[Finding]:
    """Run all checks, quick ones first. `root` is the folder for results."""
    yield python(sys.version_info[:3])
    yield pillow(distributions())
    yield backport(sys.path)
    yield fastapi(_version("fastapi"))
    yield sqlalchemy(_version("sqlalchemy"))
    yield disk(root, FREE) if isinstance(root, Path) else bucket(root)
    yield _prefect()
    yield _device()
    yield from extras(EXTRAS)
    yield from sources()
    yield from lost(root)


def lost(root: Place) -> Iterator[Finding]:
    """Objects that the newest manifest or the last finished run of each source names, and that do not exist."""
    from pipeline.errors import WinnowError
    from pipeline.status.watch import Watch
    from pipeline.store.storage import Storage, sources

    try:
        for name in sources(root, "log"):
            if missing := Watch(Storage(root / name)).look().missing:
                more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
                text = f"{missing[0]}{more} missing"
                yield Finding(f"results of {name}", "note", text, f"winnow curate {name}   # makes them again")
    except WinnowError as error:
        yield Finding("results", "note", str(error))


def stored(root: Place) -> Iterator[Finding]:
    """Compare the bytes of every object that is named by its content with its name. Reads all of them."""
    from pipeline.store.damage import damaged
    from pipeline.store.storage import Storage, sources

    for name in sources(root, "log"):
        storage = Storage(root / name)
        found = damaged(storage)
        if not found:
            yield Finding(f"results of {name}", "ok", "every object has the content of its name")
        for key in found:
            where = storage.address(key)
            remove = f"rm {where}" if isinstance(root, Path) else f"remove {where} with the tools of the store"
            yield Finding(f"results of {name}", "fault", f"{where} is damaged", f"{remove}; winnow curate {name}")


def python(found: tuple[int, ...]) -> Finding:
    """img2dataset imports a module that Python 3.13 no longer has."""
    text = ".".join(map(str, found))
    if (3, 11) <= found < (3, 13):
        return Finding("Python", "ok", text)
    return Finding("Python", "fault", f"{text}, not 3.11 or 3.12", "rm -rf .venv && make setup PYTHON=python3.11")


def pillow(installed: Iterable[Distribution]) -> Finding:
    """Pillow and pillow-simd are both the package PIL. If both are installed, each has overwritten files."""
    owners = sorted(each.metadata["Name"] for each in installed if _owns(each.read_text("RECORD"), "PIL/Image.py"))
    if len(owners) == 1:
        return Finding("PIL", "ok", f"{owners[0]} {version(owners[0])}")
    found = f"owned by {' and '.join(owners)}" if owners else "not installed"
    fix = f"{_pip()} uninstall -y {' '.join(owners)}; {_AGAIN}" if owners else _AGAIN
    return Finding("PIL", "fault", found, fix)


def _owns(record: str | None, path: str) -> bool:
    return any(line.startswith(f"{path},") for line in (record or "").splitlines())


def backport(path: list[str]) -> Finding:
    """The package `dataclasses` of 2018 shadows the standard library's, and Prefect's server cannot start."""
    found = list(distributions(name="dataclasses", path=path))
    if not found:
        return Finding("dataclasses backport", "ok", "not installed")
    text = f"{found[0].version} shadows the standard library's; Prefect cannot start"
    return Finding("dataclasses backport", "fault", text, f"{_pip()} uninstall -y dataclasses")


def fastapi(found: str | None) -> Finding:
    """Prefect 3.8's server cannot start with fastapi 0.151 or newer."""
    return _older("fastapi", found, (0, 151), "Prefect's server cannot start")


def sqlalchemy(found: str | None) -> Finding:
    """Prefect 3.8's scheduler fails with SQLAlchemy 2.1: deployments with a schedule would never run."""
    return _older("SQLAlchemy", found, (2, 1), "Prefect's schedules never run")


def _older(what: str, found: str | None, limit: tuple[int, int], harm: str) -> Finding:
    if found is None:
        return Finding(what, "fault", "not installed", _AGAIN)
    if tuple(int(part) for part in found.split(".")[:2]) < limit:
        return Finding(what, "ok", found)
    return Finding(what, "fault", f"{found}, not one before {limit[0]}.{limit[1]}: {harm}", _AGAIN)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def bucket(root: BucketUrl) -> Finding:
    """Whether the store answers, lets this machine write, and honours the conditions of a write."""
    from pipeline.errors import WinnowError
    from pipeline.store.bucket import Bucket
    from pipeline.store.cache import of_user

    try:
        Bucket(root).probe()
        cache = of_user()
    except WinnowError as error:
        return Finding("bucket", "fault", str(error), "see docs/buckets.md")
    return Finding("bucket", "ok", f"{root} can be written, on conditions too; copies are in {cache.folder}")


def disk(root: Path, least: int) -> Finding:
    """Whether the folder for results can be written, and its disk has room."""
    where = next(path for path in (root.resolve(), *root.resolve().parents) if path.exists())
    if not os.access(where, os.W_OK):
        return Finding("disk", "fault", f"{where} cannot be written", "choose another folder with --root DIR")
    free = shutil.disk_usage(where).free
    text = f"{free / 2**30:.0f} GiB free at {where}"
    if free >= least:
        return Finding("disk", "ok", text)
    return Finding("disk", "note", text, "enough for the demo; for a large source choose another disk with --root DIR")


_PROTECT = "set PREFECT_SERVER_API_AUTH_STRING where it is started: docs/schedule.md"


def _prefect() -> Finding:
    from flows import server

    try:
        import prefect
        import prefect.server.api.server
    except Exception as error:  # noqa: BLE001 - any error at import is a finding
        return Finding("Prefect", "fault", f"cannot be imported: {str(error).splitlines()[0]}", _AGAIN)
    api = os.environ.get("PREFECT_API_URL") or server.url()
    seen = server.state(api.rstrip("/"))
    text = f"{prefect.__version__}; {api}: {seen.value}"
    if seen is server.State.OPEN:
        return Finding("Prefect", "note", f"{text}, so any page and any user here can run commands", _PROTECT)
    if seen is server.State.SILENT:
        text += ", so commands start a server of their own"
    return Finding("Prefect", "ok", text)


def _device() -> Finding:
    """A machine without a GPU is slower, which is no fault."""
    if find_spec("torch") is None:
        return Finding("device", "fault", "torch is not installed", _AGAIN)
    from pipeline.models import device

    return Finding("device", "ok", device.describe())


def extras(names: Iterable[str]) -> Iterator[Finding]:
    """Each extra, and what it is for. All else works without it."""
    for name in names:
        purpose = EXTRAS[name].purpose
        if absent := missing(name):
            text = f"{', '.join(absent)} not installed; only needed for {purpose}"
            yield Finding(f"extra {name}", "note", text, command(name))
        else:
            yield Finding(f"extra {name}", "ok", f"installed; {purpose}")


def sources() -> Iterator[Finding]:
    """Each source file, and whether the weights that it names are on this machine."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # checks download nothing
    from pipeline.download import by_source
    from pipeline.errors import MissingExtraError, WinnowError
    from pipeline.sources import loading
    from training.dual import build
    from training.encoders import encoders

    for path in loading.source_files():
        what = f"source {path.stem}"
        try:
            described = loading.load(path)
        except WinnowError as error:
            yield Finding(what, "fault", str(error), f"edit {path}")
            continue
        learners = described.task.learners.values() if described.task else ()
        needed: list[tuple[str, Callable[[], object]]] = [
            ("curate", partial(by_source.stage, described)),
            *(("curate", spec.identity) for spec in described.scorers.values()),
            *(("train", partial(encoders.identity, each.encoder)) for each in learners if each.encoder),
            *(("fit", partial(build.identity, model)) for model in described.models.values()),
        ]
        command = ""
        try:
            for command, identity in needed:  # noqa: B007 - the command that downloads what is missing
                identity()
        except MissingExtraError as error:
            yield Finding(what, "note", str(error), error.command)
        except WinnowError as error:
            fix = f"winnow {command} {path.stem}   # downloads them if there is a network"
            yield Finding(what, "note", str(error), fix)
        else:
            yield Finding(what, "ok", "valid; its weights are here" if len(needed) > 1 else "valid")


def _pip() -> str:
    return f"{sys.executable} -m pip"


_AGAIN = "rm -f .venv/.installed && make setup"
