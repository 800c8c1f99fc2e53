"""The pictures of README, from the report and the page of a demo that has run: `make pictures` (needs chromium)."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageChops

HERE = Path(__file__).parent
SECTIONS = {"funnel": 1000, "gain": 1000, "scores": 1000, "pairs-2": 1000}
"""Sections of the report by id, and how wide the window is that shows them, in pixels."""

EXPLORE = (1100, 1290)
"""Width and height of the window that shows `winnow explore`, in pixels."""

_TALL = 3000


def main(report: Path) -> None:
    """One PNG for each section, cut to its contents."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no chromium is installed")
    page = report.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for section, width in SECTIONS.items():
            first = "h2:first-child { margin-top: 0 } h2 ~ h2, h2 ~ h2 ~ * { display: none }"
            alone = f"<style>main > :not(#{section}) {{ display: none }} {first}</style></head>"
            (Path(folder) / "page.html").write_text(page.replace("</head>", alone), encoding="utf-8")
            shot = shown(browser, Path(folder), f"file://{folder}/page.html", width, _TALL)
            name = re.sub(r"\W", "-", section)
            trimmed(shot).save(HERE / f"report-{name}.png", optimize=True)
        with explored(report.parent) as address:
            shown(browser, Path(folder), address, *EXPLORE).save(HERE / "explore.png", optimize=True)


def shown(browser: str, folder: Path, address: str, width: int, height: int) -> Image.Image:
    """What a window of so many pixels shows, once the page has come to rest."""
    shot = folder / "shot.png"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000")
    size = (f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", f"--screenshot={shot}")
    subprocess.run([browser, *flags, *size, address], check=True, capture_output=True, timeout=120)
    return Image.open(shot).convert("RGB")


@contextmanager
def explored(results: Path) -> Iterator[str]:
    """The address of `winnow explore` for the source whose results lie in a folder of its name."""
    command = [sys.executable, "-m", "flows", "explore", results.name, "--root", str(results.parent)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    try:
        assert program.stdout
        yield program.stdout.readline().strip()
    finally:
        program.terminate()
        program.wait(30)


def trimmed(shot: Image.Image) -> Image.Image:
    """The picture without the empty page around its contents, but for a margin."""
    empty = Image.new("RGB", shot.size, shot.getpixel((0, shot.height - 1)))
    left, top, right, bottom = ImageChops.difference(shot, empty).getbbox() or (0, 0, *shot.size)
    return shot.crop((max(0, left - 12), max(0, top - 12), min(shot.width, right + 12), min(shot.height, bottom + 12)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/demo/report.html").resolve())
