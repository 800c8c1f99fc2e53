"""The cost of an encoder on this machine: pictures per second, parameters, operations, memory.

It is measured on stored pictures, in a separate process, so that the memory peak of another encoder does not count and
an encoder that this machine cannot run does not end the comparison.
"""

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from PIL import Image

from pipeline.errors import ModelError
from pipeline.images import decoders
from pipeline.process import spawning
from pipeline.process.machine import cores
from pipeline.settings.encoder import Encoder, Network
from training.data import features
from training.encoders import encoders
from training.encoders.encoders import LoadedEncoder, Tower
from training.studies import memory


@dataclass(frozen=True)
class Loop:
    """A loop from stored pictures to features. `workers` threads decode; with 0 the encoder waits for each picture.

    `busy` is the share of the time in which the encoder ran.
    """

    workers: int
    images_per_second: float
    busy: float


@dataclass(frozen=True)
class Cost:
    """`encoder_images_per_second` is of the encoder alone, on prepared pictures, `batch` at a time. `halved` says that
    memory ran out for a larger batch.

    `flops` are floating-point operations for one picture, a multiplication and an addition being two; None for an
    encoder that is no network. `memory_mb`, MiB, is the peak of the process beyond what it had before, or the peak of
    the GPU. `one_by_one` opens, hashes and prepares picture after picture; `streamed` does so ahead, with 1, 2, 4 ...
    workers.
    """

    dim: int
    parameters: int
    flops: int | None
    batch: int | None
    halved: bool
    memory_mb: int
    encoder_images_per_second: float
    one_by_one: Loop
    streamed: tuple[Loop, ...]

    @property
    def best(self) -> Loop:
        """The fastest of the streamed loops."""
        return max(self.streamed, key=lambda loop: loop.images_per_second)


def measure_in_process(encoder: Encoder, pictures: Sequence[bytes], decoder: decoders.Name = "pillow") -> Cost:
    """As `measure`, in a separate process. Also raises ModelError if that process dies."""
    try:
        with spawning.pool(1) as process:
            return process.submit(measure, encoder, pictures, decoder).result()
    except BrokenProcessPool as error:
        raise ModelError(f"{encoder.name}: its process was killed, probably because memory ran out") from error


def measure(encoder: Encoder, pictures: Sequence[bytes], decoder: decoders.Name = "pillow") -> Cost:
    """Measure each loop once on all pictures, after a warm-up window. Raises ModelError.

    `decoder` resizes pictures in the streamed loops. Pillow does so in the loop that opens them one by one.
    """
    if isinstance(encoder, Network):
        import_module(encoder.kind)  # the memory of its library is not counted
    before = memory.peak_mb()
    loaded = encoders.load(encoder)
    window = [loaded.prepare(_open_picture(picture)) for picture in pictures[: features.WINDOW]]
    dim = loaded.encode(window).shape[1]
    parameters, flops = _count_operations(loaded, window[0])
    one_by_one = _one_by_one(loaded, pictures)
    streamed = tuple(
        _streamed(loaded, decoders.from_pixels(decoder), pictures, workers) for workers in workers_to_try(cores())
    )
    seconds = min(_seconds(loaded, window) for _ in range(2))
    return Cost(
        dim,
        parameters,
        flops,
        loaded.batch if isinstance(loaded, Tower) else None,
        isinstance(loaded, Tower) and (loaded.batch or 0) < loaded.default_batch(window[0]),
        memory.peak_mb() - before,
        len(window) / seconds,
        one_by_one,
        streamed,
    )


def workers_to_try(most: int) -> list[int]:
    """1, 2, 4 ... and `most`."""
    return sorted({min(1 << power, most) for power in range(most.bit_length() + 1)})


def _count_operations(loaded: LoadedEncoder, prepared: Any) -> tuple[int, int | None]:
    """Parameters, and the operations of one picture."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if not isinstance(loaded, Tower):
        return 0, None
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        loaded.network(loaded.stack([prepared]))
    return sum(each.numel() for each in loaded.network.parameters()), counter.get_total_flops()


def _one_by_one(loaded: LoadedEncoder, pictures: Sequence[bytes]) -> Loop:
    """The naive loop: a picture is opened after the previous one was prepared."""
    started, spent = time.perf_counter(), 0.0
    named, make = list(_named(pictures)), partial(features.prepare, loaded, Image.fromarray, "", 0)
    for start in range(0, len(named), features.WINDOW):
        made = [make(picture) for picture in named[start : start + features.WINDOW]]
        spent += _seconds(loaded, [picture.versions[0] for picture in made])
    return _loop(0, len(pictures), time.perf_counter() - started, spent)


def _streamed(loaded: LoadedEncoder, resize: features.Resize, pictures: Sequence[bytes], workers: int) -> Loop:
    """The loop of the gain: `features.decode` with this number of workers."""
    make = partial(features.prepare, loaded, resize, "", 0)
    started, spent = time.perf_counter(), 0.0
    with features.decode([("", lambda: _named(pictures))], make, workers) as windows:
        for _, window in windows:
            spent += _seconds(loaded, [picture.versions[0] for picture in window])
    return _loop(workers, len(pictures), time.perf_counter() - started, spent)


def _seconds(loaded: LoadedEncoder, window: Sequence[Any]) -> float:
    """The time in seconds to encode a window."""
    started = time.perf_counter()
    loaded.encode(window)
    return time.perf_counter() - started


def _loop(workers: int, pictures: int, seconds: float, spent: float) -> Loop:
    return Loop(workers, round(pictures / seconds, 2), round(spent / seconds, 4))


def _named(pictures: Sequence[bytes]) -> Iterator[features.NamedPicture]:
    return ((f"picture {number}", picture) for number, picture in enumerate(pictures))


def _open_picture(picture: bytes) -> Image.Image:
    with Image.open(io.BytesIO(picture)) as image:
        return image.convert("RGB")
