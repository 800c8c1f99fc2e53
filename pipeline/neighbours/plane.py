"""A plane of many vectors: near vectors are near points. t-SNE where openTSNE is installed, or else PCA.

t-SNE: van der Maaten and Hinton 2008, as openTSNE computes it (Policar, Strazar, Zupan 2024), with its defaults, from
the 50 first principal components and with a first layout of the first two (Kobak and Berens 2019).
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.process.machine import cores
from pipeline.progress import StepProgress

Points = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float16] | npt.NDArray[np.float32]

COMPONENTS = 50
"""Principal components that t-SNE gets."""

PERPLEXITY = 30
"""Neighbours that t-SNE balances; fewer for few vectors."""

EARLY, LATE = 250, 500
"""Iterations of both phases of t-SNE: openTSNE's defaults."""

FEWEST = 10
"""Vectors below which t-SNE makes no sense."""

INTERPOLATED = 10_000
"""Vectors from which on interpolation is faster than the Barnes-Hut tree, as openTSNE has it."""

BLOCK = 65_536
"""Vectors that are float64 at once."""

Method = Literal["t-SNE", "PCA"]


def method() -> Method:
    """What this machine computes: t-SNE if openTSNE is installed (the extra map)."""
    return "t-SNE" if find_spec("openTSNE") else "PCA"


def plane(vectors: Vectors, method: Method, progress: StepProgress) -> Points:
    """A point for each vector [n, dim]: float32 [n, 2]. The same vectors in the same order give the same points."""
    components = principal_components(vectors, COMPONENTS if method == "t-SNE" else 2)
    if method == "PCA" or len(vectors) < FEWEST:
        progress(1, 1)
        return _two(components)
    return _tsne(components, progress)


def principal_components(vectors: Vectors, count: int) -> Points:
    """Coordinates on the first `count` principal axes: float32 [n, count at most], each axis with its largest weight
    positive.
    """
    blocks = range(0, len(vectors), BLOCK)
    dim = vectors.shape[1]
    mean, products = np.zeros(dim), np.zeros((dim, dim))
    for start in blocks:
        mean += vectors[start : start + BLOCK].astype(np.float64).sum(axis=0) / max(len(vectors), 1)
    for start in blocks:
        centred = vectors[start : start + BLOCK].astype(np.float64) - mean
        products += centred.T @ centred
    _, axes = np.linalg.eigh(products)
    axes = axes[:, ::-1][:, :count]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    found = [np.empty((0, axes.shape[1]))]
    found += [(vectors[start : start + BLOCK].astype(np.float64) - mean) @ axes for start in blocks]
    return np.concatenate(found).astype(np.float32)


def _two(components: Points) -> Points:
    found = np.zeros((len(components), 2), np.float32)
    found[:, : components.shape[1]] = components[:, :2]
    return found


def _tsne(components: Points, progress: StepProgress) -> Points:
    import openTSNE

    total = EARLY + LATE
    start = _two(components) / max(float(np.std(components[:, 0])), 1e-12) * 1e-4
    perplexity = min(PERPLEXITY, (len(components) - 1) // 3)
    few = len(components) < INTERPOLATED
    threads = 1 if few else cores()
    affinities = openTSNE.affinity.PerplexityBasedNN(components, perplexity, n_jobs=threads, random_state=0)
    embedding = openTSNE.TSNEEmbedding(
        start.astype(np.float64),
        affinities,
        negative_gradient_method="bh" if few else "fft",
        n_jobs=threads,
        random_state=0,
    )
    for steps, before, settings in (
        (EARLY, 0, {"exaggeration": 12, "momentum": 0.5}),
        (LATE, EARLY, {"momentum": 0.8}),
    ):
        tell = _teller(progress, before, total)
        embedding = embedding.optimize(n_iter=steps, callbacks=tell, callbacks_every_iters=10, **settings)
    progress(total, total)
    found: Points = np.asarray(embedding, np.float32)
    return found


def _teller(progress: StepProgress, before: int, total: int) -> Callable[[int, float, object], None]:
    def tell(done: int, error: float, points: object) -> None:
        progress(before + done, total)

    return tell
