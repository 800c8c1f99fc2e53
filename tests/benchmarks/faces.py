"""Faces on photographs of WINNOW_DATA: how many are found, what the blur leaves, and what it costs.

PYTHONPATH=. WINNOW_DATA=... python tests/benchmarks/faces.py [PHOTOGRAPHS]
"""

import io
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipeline.images import face_detector
from pipeline.images.face_blur import FaceBlur
from pipeline.images.face_detector import FaceDetector

DATA = Path(os.environ["WINNOW_DATA"]) / "flickr8k_more"
PERSON = re.compile(r"\b(man|men|woman|women|boys?|girls?|people|person|child|children|lady|ladies|guys?)\b", re.I)
THRESHOLDS = (0.2, 0.3, 0.5, 0.7)


def photographs(count: int) -> tuple[list[Image.Image], np.ndarray]:
    """Photographs as they are stored, evenly spread over the pack, and whether most captions name a person."""
    table = pq.read_table(DATA / "captions.parquet", columns=["image", "caption"]).to_pylist()
    named: dict[str, list[bool]] = {}
    for row in table:
        named.setdefault(row["image"], []).append(bool(PERSON.search(row["caption"])))
    chosen = sorted(named)[:: max(1, len(named) // count)][:count]
    pictures = []
    for name in chosen:
        with Image.open(DATA / "images" / name) as image:
            pictures.append(stored(image.convert("RGB")))
    return pictures, np.array([np.mean(named[name]) for name in chosen])


def stored(image: Image.Image) -> Image.Image:
    """As a download stores it."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=95)
    return Image.open(data).convert("RGB")


def confidences(detector: FaceDetector, pictures: list[Image.Image]) -> tuple[list[np.ndarray], float]:
    """Of the faces of each picture, and the processor time in ms for each."""
    began = time.process_time()
    found = [detector.find(picture)[:, 4] for picture in pictures]
    return found, 1000 * (time.process_time() - began) / len(pictures)


def report(what: str, found: list[np.ndarray], people: np.ndarray, spent: float) -> None:
    """The faces, and the share of photographs with one: of those with people, and of those without."""
    print(f"{what}: {spent:.0f} ms of processor time for each")
    for threshold in THRESHOLDS:
        has = np.array([(each > threshold).any() for each in found])
        total = sum(int((each > threshold).sum()) for each in found)
        with_people, without = has[people == 1].mean(), has[people == 0].mean()
        print(f"  {threshold}: {total} faces; {with_people:.1%} with people, {without:.1%} without")


def main() -> None:
    """Print the figures."""
    pictures, people = photographs(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
    sizes = sorted({min(picture.size) for picture in pictures})
    print(
        f"{len(pictures)} photographs of {sizes[0]} to {sizes[-1]} px: {(people == 1).sum()} whose captions all name "
        f"people, {(people == 0).sum()} of which none does; load {os.getloadavg()[0]:.1f}"
    )
    detector = FaceDetector(0.2)
    enlarged, spent = confidences(detector, pictures)
    report("enlarged to 384 px", enlarged, people, spent)
    smallest, face_detector.SMALLEST = face_detector.SMALLEST, 1
    found, spent = confidences(detector, pictures)
    report("as it is stored", found, people, spent)
    face_detector.SMALLEST = smallest
    blur = FaceBlur()
    left, _ = confidences(detector, [stored(blur(picture)) for picture in pictures])
    report("enlarged, after blurring", left, people, 0)


if __name__ == "__main__":
    main()
