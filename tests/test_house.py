"""The packages in their order: no circle of files, and no arrow upward, deferred and type-only imports included."""

import ast
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
TOPS = ("filters", "pipeline", "training", "flows", "winnow")
FILES = {
    ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__"): path
    for top in TOPS
    for path in (HOME / top).rglob("*.py")
}
CONTRACTS = tomllib.loads((HOME / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def imported(tree):
    """The dotted names that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name):
    """The file that a dotted name is, or is defined in; None for what is not winnow's."""
    parts = name.split(".")
    return next((".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in FILES), None)


def arrows():
    return {
        module: {found for name in imported(ast.parse(path.read_text())) if (found := module_of(name)) != module}
        - {None}
        for module, path in FILES.items()
    }


def test_there_is_no_circle():
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_no_arrow_points_upward():
    for contract in CONTRACTS:
        if contract["type"] != "layers":
            continue
        inside = [f"{container}." for container in contract.get("containers", [])] or [""]
        for prefix in inside:
            height = {prefix + name: -place for place, name in enumerate(contract["layers"])}

            def room(module, height=height):
                return next((name for name in height if module == name or module.startswith(f"{name}.")), None)

            for module, targets in arrows().items():
                for target in targets:
                    here, there = room(module), room(target)
                    assert here is None or there is None or height[there] <= height[here], f"{module} -> {target}"


def test_every_folder_of_code_is_in_a_contract():
    for contract in CONTRACTS:
        for container in contract.get("containers", []):
            folder = HOME / container
            there = {path.stem for path in folder.glob("*.py")} | {
                path.parent.name for path in folder.glob("*/__init__.py")
            }
            assert there - {"__init__"} == set(contract["layers"]), container
