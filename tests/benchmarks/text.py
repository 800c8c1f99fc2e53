"""Text in photographs of WINNOW_DATA: how much of what is written into them is found and read, and what it costs.

PYTHONPATH=. WINNOW_DATA=... python tests/benchmarks/text.py [PHOTOGRAPHS]
"""

import os
import sys
import time
from pathlib import Path
from textwrap import wrap

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from pipeline.images.text_detector import Found, TextDetector, covered
from pipeline.scorers.captions import plain_words
from pipeline.scorers.text import share_read

DATA = Path(os.environ["WINNOW_DATA"]) / "flickr8k_more"
SIDES = (224, 320, 512)
SIZE = 14
"""Of the letters, in pixels of a photograph of 224."""


def photographs(count: int) -> tuple[list[Image.Image], list[str]]:
    """Photographs, evenly spread over the pack, and a caption of each."""
    captions = {row["image"]: row["caption"] for row in pq.read_table(DATA / "captions.parquet").to_pylist()}
    chosen = sorted(captions)[:: max(1, len(captions) // count)][:count]
    return [Image.open(DATA / "images" / name).convert("RGB") for name in chosen], [captions[name] for name in chosen]


def over(picture: Image.Image, caption: str) -> Image.Image:
    """The caption across the lower part of the photograph, white with a black edge."""
    written = picture.copy()
    lines = "\n".join(wrap(caption, int(1.8 * written.width / SIZE)))
    pen, font = ImageDraw.Draw(written), ImageFont.load_default(SIZE)
    place = (written.width / 2, written.height - 8)
    pen.multiline_text(
        place, lines, "white", font, "md", spacing=2, align="center", stroke_width=1, stroke_fill="black"
    )
    return written


def card(picture: Image.Image, caption: str) -> Image.Image:
    """The caption on white, without the photograph."""
    blank = Image.new("RGB", picture.size, "white")
    pen, font = ImageDraw.Draw(blank), ImageFont.load_default(SIZE)
    lines = "\n".join(wrap(caption, int(1.8 * blank.width / SIZE)))
    pen.multiline_text((blank.width / 2, blank.height / 2), lines, "black", font, "mm", 2, "center")
    return blank


def found_in(detector: TextDetector, pictures: list[Image.Image]) -> tuple[list[Found], float]:
    """The text of each picture, and the processor time in ms for each."""
    began = time.process_time()
    found = [detector.find(np.asarray(picture)) for picture in pictures]
    return found, 1000 * (time.process_time() - began) / len(pictures)


def main() -> None:
    """Print the figures."""
    pictures, captions = photographs(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
    kinds = {
        "as it is": pictures,
        "caption across it": [over(*each) for each in zip(pictures, captions, strict=True)],
        "caption on a card": [card(*each) for each in zip(pictures, captions, strict=True)],
    }
    print(f"{len(pictures)} photographs of {min(pictures[0].size)} px; load {os.getloadavg()[0]:.1f}")
    for side in SIDES:
        detector = TextDetector(side, recognition=True)
        _, alone = found_in(TextDetector(side, recognition=False), pictures)
        print(f"side {side}: {alone:.0f} ms of processor time to search a photograph as it is")
        for kind, shown in kinds.items():
            found, spent = found_in(detector, shown)
            boxes = np.array([len(each.boxes) for each in found])
            area = np.mean([covered(np.asarray(shown[0]).shape, each) for each in found])
            words = [frozenset(word for line in each.lines for word in plain_words(line)) for each in found]
            read = np.mean([share_read(caption, each) or 0 for caption, each in zip(captions, words, strict=True)])
            print(
                f"  {kind}: text in {np.mean(boxes > 0):.0%}, two lines or more in {np.mean(boxes > 1):.0%}, "
                f"mean area {area:.2f}, caption words read {read:.0%}; {spent:.0f} ms with reading"
            )


if __name__ == "__main__":
    main()
