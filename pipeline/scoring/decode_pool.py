"""Decodes the stored pictures of a window on all cores, and prepares them for scorers.

On a few cores threads do. On many they wait for one another: each picture takes a hundred calls into libraries, and
after each of them a thread waits for Python's lock. There the work goes to processes, but for scorers whose `prepare`
cannot leave this one, such as those with a network in it.
"""

import signal
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from pipeline.images import decoders
from pipeline.process import spawning
from pipeline.process.machine import cores
from pipeline.scorers.spec import Prepares, PreparesAnywhere, Scorer

FEW = 4
"""The most cores on which threads decode."""

MOST = 16
"""The most processes: each holds 0.4 GB of libraries, and workers of several GPUs may share the machine."""

MANY = 256
"""The fewest pictures for which processes are started, which takes some seconds."""

CHUNK = 16
"""Pictures that a process gets at a time."""

Preparation: TypeAlias = Callable[[Image.Image], Any]

NamedPicture: TypeAlias = tuple[str, bytes]
"""What a picture is called in errors, and its bytes."""


class PictureError(Exception):
    """A picture that cannot be decoded, or at which a scorer fails."""


class DecodePool:
    """Threads, and `processes` processes, which start with the first `MANY` pictures. Unset: as the cores are.

    Raises SourceError for a decoder that is not installed.
    """

    def __init__(self, decoder: decoders.Name, processes: int | None = None) -> None:
        self._decoder, self._decode = decoder, decoders.decoder(decoder)
        self._count = (min(cores(), MOST) if cores() > FEW else 0) if processes is None else processes
        self._threads = ThreadPoolExecutor(cores(), "decode")
        self._started: ProcessPoolExecutor | None = None

    def map(self, pictures: Sequence[NamedPicture], scorers: Mapping[str, Scorer]) -> Iterator[Mapping[str, Any]]:
        """What each scorer prepares of each picture, by its name, in their order. Raises PictureError."""
        away = {name: each.preparation for name, each in scorers.items() if isinstance(each, PreparesAnywhere)}
        here = {name: _preparation(each) for name, each in scorers.items()}
        if not self._count or not away or (self._started is None and len(pictures) < MANY):
            return self._threads.map(partial(_decoded, self._decode, here), *_columns(pictures))
        return self._apart(pictures, away, {name: here[name] for name in here.keys() - away.keys()})

    def _apart(
        self, pictures: Sequence[NamedPicture], away: Mapping[str, Preparation], here: Mapping[str, Preparation]
    ) -> Iterator[Mapping[str, Any]]:
        if self._started is None:
            self._started = spawning.pool(self._count)
            weakref.finalize(self, self._started.shutdown, wait=False, cancel_futures=True)
        names, contents = _columns(pictures)
        work = partial(_decoded_apart, self._decoder, away, bool(here))
        try:
            made = list(self._started.map(work, names, contents, chunksize=CHUNK))
        except BrokenExecutor as error:
            self._started = None
            raise PictureError("a process that decodes was killed: is there too little memory?") from error
        if not here:
            return iter(values for values, _ in made)
        picture = decoders.from_pixels(self._decoder)
        kept = [pixels for _, pixels in made]
        rest = self._threads.map(lambda name, pixels: _prepared(here, name, picture(pixels)), names, kept)
        return ({**values, **own} for (values, _), own in zip(made, rest, strict=True))


def _columns(pictures: Sequence[NamedPicture]) -> tuple[Sequence[str], Sequence[bytes]]:
    return [name for name, _ in pictures], [content for _, content in pictures]


def _preparation(scorer: Scorer) -> Preparation:
    return scorer.prepare if isinstance(scorer, Prepares) else _as_it_is


def _as_it_is(picture: Image.Image) -> Image.Image:
    return picture


def _decoded_apart(
    decoder: decoders.Name, preparations: Mapping[str, Preparation], keep: bool, name: str, content: bytes
) -> tuple[Mapping[str, Any], Any]:
    """What is prepared of a picture, and its pixels if they are to be kept."""
    picture = _decoded_picture(_in_process(decoder), name, content)
    return _prepared(preparations, name, picture), np.asarray(picture) if keep else None


@cache
def _in_process(decoder: decoders.Name) -> Callable[[bytes], Image.Image]:
    """Called for the first picture of a process: it uses one core, and Ctrl-C is for its parent."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return decoders.decoder(decoder)


def _decoded(
    decode: Callable[[bytes], Image.Image], preparations: Mapping[str, Preparation], name: str, content: bytes
) -> Mapping[str, Any]:
    return _prepared(preparations, name, _decoded_picture(decode, name, content))


def _decoded_picture(decode: Callable[[bytes], Image.Image], name: str, content: bytes) -> Image.Image:
    try:
        return decode(content)
    except Exception as error:  # Pillow raises nearly anything on a broken file
        raise PictureError(f"{name} cannot be decoded: {error}") from error


def _prepared(preparations: Mapping[str, Preparation], name: str, picture: Image.Image) -> Mapping[str, Any]:
    return {scorer: _prepared_for(scorer, prepare, name, picture) for scorer, prepare in preparations.items()}


def _prepared_for(scorer: str, prepare: Preparation, name: str, picture: Image.Image) -> Any:
    try:
        return prepare(picture)
    except Exception as error:
        raise PictureError(f"scorer {scorer!r} fails on {name}: {error!r}") from error
