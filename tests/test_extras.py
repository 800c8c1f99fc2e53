import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import network_watch
import pytest

from flows import doctor
from pipeline.errors import ModelError
from pipeline.extras import EXTRAS, Extra, missing, require

DECLARED = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture
def absent(monkeypatch):
    """An extra of which one module is installed, and another is not."""
    monkeypatch.setitem(EXTRAS, "moon", Extra("craters", ("json", "no_such_module")))


def test_every_extra_of_the_project_is_known():
    assert set(EXTRAS) == set(DECLARED) - {"dev"}


@pytest.mark.parametrize("name", EXTRAS)
def test_the_modules_of_an_extra_are_of_its_packages(name):
    if missing(name):
        pytest.skip(f"the extra {name} is not installed")
    packages = [each.split(">")[0].split("[")[0] for each in DECLARED[name]]
    files = [str(file) for package in packages for file in distribution(package).files or ()]
    assert all(f"{module}/__init__.py" in files for module in EXTRAS[name].modules)


def test_a_missing_extra_is_one_line_with_the_command(absent):
    with pytest.raises(ModelError) as caught:
        require("moon", "the scorer crater")
    text = 'the scorer crater needs the extra moon (no_such_module not installed): uv pip install -e ".[moon]"'
    assert str(caught.value) == text


def test_doctor_lists_what_an_extra_lacks(absent):
    (finding,) = doctor.extras(["moon"])
    assert (finding.what, finding.state) == ("extra moon", "note")
    assert finding.found == "no_such_module not installed; only needed for craters"
    assert finding.fix == 'uv pip install -e ".[moon]"'


def test_asking_imports_nothing():
    program = (
        "import sys; from pipeline.extras import EXTRAS, missing\n"
        "for name in EXTRAS: missing(name)\n"
        "print([each for extra in EXTRAS.values() for each in extra.modules if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


EVERY_MODEL = """
import time
from pathlib import Path
from pipeline.images.face_detector import FaceDetector
from pipeline.images.text_detector import TextDetector
from pipeline.scorers.unsafe import UnsafeSpec
held = FaceDetector(0.5), TextDetector(64, True), UnsafeSpec(kind="unsafe").load()
time.sleep(12)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not network_watch.NATIVE, reason="calls of what is no Python are watched on Linux, with a C compiler"
)
def test_no_model_of_an_extra_calls_anybody(tmp_path):
    """onnxruntime does so a few seconds after it loads a model, unless it is told not to."""
    for name in ("faces", "text", "unsafe"):
        if missing(name):
            pytest.skip(f"the extra {name} is not installed")
    (tmp_path / "watched").touch()
    subprocess.run([sys.executable, "-c", EVERY_MODEL], env=network_watch.environment(tmp_path), check=True)
    assert network_watch.away(network_watch.calls(tmp_path)) == []
