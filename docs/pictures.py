"""The pictures of README, from the report of a demo that has run: `make pictures` (needs chromium)."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

HERE = Path(__file__).parent
SECTIONS = {"funnel": 1000, "gain": 1000, "scores": 1000, "pairs-2": 1000}
"""Sections of the report by id, and how wide the window is that shows them, in pixels."""

_TALL = 3000


def main(report: Path) -> None:
    """One PNG for each section, cut to its contents."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no chromium is installed")
    page = report.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for section, width in SECTIONS.items():
            alone = (
                f"<style>main > :not(#{section}) {{ display: none }} h2:first-child {{ margin-top: 0 }}</style></head>"
            )
            (Path(folder) / "page.html").write_text(page.replace("</head>", alone), encoding="utf-8")
            shot = Path(folder) / "shot.png"
            flags = (
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--window-size={width},{_TALL}",
            )
            profile = f"--user-data-dir={folder}/profile"
            subprocess.run(
                [browser, *flags, profile, f"--screenshot={shot}", f"file://{folder}/page.html"],
                check=True,
                capture_output=True,
                timeout=120,
            )
            name = re.sub(r"\W", "-", section)
            trimmed(Image.open(shot).convert("RGB")).save(HERE / f"report-{name}.png", optimize=True)


def trimmed(shot: Image.Image) -> Image.Image:
    """The picture without the empty page around its contents, but for a margin."""
    empty = Image.new("RGB", shot.size, shot.getpixel((0, shot.height - 1)))
    left, top, right, bottom = ImageChops.difference(shot, empty).getbbox() or (0, 0, *shot.size)
    return shot.crop((max(0, left - 12), max(0, top - 12), min(shot.width, right + 12), min(shot.height, bottom + 12)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/demo/report.html"))
