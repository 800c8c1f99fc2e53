"""Text in a picture: PP-OCR's detector and recogniser, whose weights are in the package rapidocr.

The detector is one of differentiable binarization (Liao et al. 2020, arXiv 1911.08947): it marks the pixels of lines of
text, and each line becomes a box, which may be slanted. It runs in onnxruntime with one thread, so that many threads
may call it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.extras import require
from pipeline.images import package_weights

VERSION = 1

DETECTOR, RECOGNISER = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"

Pixels = npt.NDArray[np.uint8]
"""RGB, [height, width, 3]."""


@dataclass(frozen=True)
class Found:
    """The text of one picture.

    `boxes` are int32 [lines, 4, 2]: the corners of each line, as (column, row) in pixels. `lines` has what was read in
    them, and is empty where nothing is to be read.
    """

    boxes: npt.NDArray[np.int32]
    lines: Sequence[str] = ()


def identity(recognition: bool, what: str) -> Mapping[str, Any]:
    """What decides which text is found, for a stage's key. Raises ModelError if `what` lacks the extra."""
    require("text", what)
    models = {"detector": DETECTOR} | ({"recogniser": RECOGNISER} if recognition else {})
    packages = ("rapidocr", "onnxruntime", "opencv-python-headless", "pyclipper", "shapely")
    return {
        "version": VERSION,
        **{name: package_weights.digest(_weights(file)) for name, file in models.items()},
        **{package: version(package) for package in packages},
    }


class TextDetector:
    """Finds lines of text in pictures whose shorter side is enlarged to `side` pixels if it has fewer.

    With `recognition` it also reads them. Raises ModelError without the extra.
    """

    def __init__(self, side: int, recognition: bool) -> None:
        require("text", "finding text")
        from rapidocr import RapidOCR

        self._recognition = recognition
        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        settings = {
            **threads,
            "Global.log_level": "critical",
            "Global.text_score": 0.0,  # a line that is hardly legible is text, too
            "Det.limit_type": "min",
            "Det.limit_side_len": side,
            "Det.model_path": str(_weights(DETECTOR)),  # rapidocr would download a model that has no path
            "Rec.model_path": str(_weights(RECOGNISER)),
        }
        self._ocr: Any = RapidOCR(params=settings)
        self.find(np.zeros((side, side, 3), np.uint8))

    def find(self, picture: Pixels) -> Found:
        """The text of a picture."""
        bgr = np.ascontiguousarray(picture[..., ::-1])
        result = self._ocr(bgr, use_det=True, use_cls=False, use_rec=self._recognition)
        if result.boxes is None:
            return Found(np.empty((0, 4, 2), np.int32))
        return Found(np.round(result.boxes).astype(np.int32), tuple(getattr(result, "txts", None) or ()))


def covered(shape: Sequence[int], found: Found) -> float:
    """The share of the pixels of a picture of this shape that the boxes cover together, 0 to 1."""
    import cv2

    inside = np.zeros(shape[:2], np.uint8)
    for box in found.boxes:
        cv2.fillConvexPoly(inside, box, 1)
    return float(inside.mean())


def masked(picture: Pixels, found: Found) -> Pixels:
    """A copy in which every box has the mean colour of its own pixels."""
    import cv2

    plain = picture.copy()
    for box in found.boxes:
        inside = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillConvexPoly(inside, box, 1)
        cv2.fillConvexPoly(plain, box, cv2.mean(picture, inside)[:3])
    return plain


def _weights(name: str) -> Path:
    return package_weights.path("rapidocr", f"models/{name}")
