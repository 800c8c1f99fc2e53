"""docs/python.md, README's lines of Python and docs/notebook.ipynb, run as a reader would, on a demo of 400 pairs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder whose demo is smaller than that of data_manifests/."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "data_manifests").mkdir()
    text = (ROOT / "data_manifests" / "demo.toml").read_text()
    small = {"pairs = 2500": "pairs = 400", "test_images = 400": "test_images = 100", "port = 8377": "port = 8391"}
    for whole, part in small.items():
        assert whole in text
        text = text.replace(whole, part)
    text = text.replace("../pipeline/", f"{ROOT}/pipeline/") + "\nseeds = 5\nsteps = 100\n"
    (folder / "data_manifests" / "demo.toml").write_text(text)
    return folder


def python_of(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def test_the_page_runs(folder):
    (readme,) = (block for block in python_of("README.md") if "winnow." in block)
    blocks = python_of("docs/python.md")
    assert len(blocks) >= 9
    (folder / "page.py").write_text("\n".join([*blocks, readme]))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Manifest('demo', " in done.stdout


def test_the_notebook_runs(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    assert not [each for cell in notebook.cells for each in cell.get("outputs", ()) if each.get("name") == "stderr"]
    shown = "".join(
        output["data"].get("text/html", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    )
    assert "downloaded pairs" in shown  # a funnel
    assert shown.count("<img") >= 12  # pictures
    assert "<svg" in shown  # the gain
