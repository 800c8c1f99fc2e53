"""A user's file as a module, with the helper modules beside it: `import my_helper` finds `my_helper.py`.

The files are read once. Helpers of two scorers may have one name, and may be called like a package of winnow.
"""

import ast
import contextlib
import hashlib
import importlib.abc
import importlib.util
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_HOME = Path(__file__).parents[2]


@dataclass(frozen=True)
class Code:
    """A file and its source, and those of the helpers that it imports, by module name."""

    file: Path
    source: bytes
    helpers: Mapping[str, tuple[Path, bytes]]

    @classmethod
    def read(cls, file: Path) -> "Code":
        """Read the file, and every file of its folder that it or a helper imports by name, in functions too."""
        source = file.read_bytes()
        helpers: dict[str, tuple[Path, bytes]] = {}
        waiting = [source]
        while waiting:
            for name in _imported(waiting.pop()):
                path = _beside(file.parent, name)
                if path and name not in helpers and path != file:
                    helpers[name] = path, path.read_bytes()
                    waiting.append(helpers[name][1])
        return cls(file, source, helpers)

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each helper, by module name."""
        return {name: hashlib.sha256(source).hexdigest() for name, (_, source) in sorted(self.helpers.items())}

    def key(self) -> str:
        """A digest of all sources and of the file's place."""
        whole = repr((str(self.file), self.source, sorted(self.helpers.items())))
        return hashlib.sha256(whole.encode()).hexdigest()


class Helpers(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the helpers of one file from their sources."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._loaded: dict[str, ModuleType] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The helper of that name."""
        if fullname not in self._code.helpers:
            return None
        file = self._code.helpers[fullname][0]
        package = file.name == "__init__.py"
        spec = importlib.util.spec_from_loader(fullname, self, origin=str(file), is_package=package)
        if spec is not None:
            spec.has_location = True
            if package:
                spec.submodule_search_locations = [str(file.parent)]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run the source of the helper."""
        file, source = self._code.helpers[module.__name__]
        exec(compile(source, file, "exec"), module.__dict__)  # noqa: S102 - the user's own

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """In this block the helpers come before other modules of their names, which are back afterwards."""
        hidden = {name: sys.modules.pop(name) for name in self._code.helpers if name in sys.modules}
        sys.modules.update(self._loaded)
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            self._loaded = {name: sys.modules[name] for name in self._code.helpers if name in sys.modules}
            sys.modules.update(hidden)


def _imported(source: bytes) -> list[str]:
    """The names of modules in import statements, with their packages; none if the source has a syntax error."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return []
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
    return [each for name in names for each in itertools.accumulate(name.split("."), "{}.{}".format)]


def _beside(folder: Path, name: str) -> Path | None:
    """The file of a module beside the scorer; None for a name of the standard library, and in winnow's own folder."""
    if folder == _HOME or name.partition(".")[0] in sys.stdlib_module_names:
        return None
    place = folder.joinpath(*name.split("."))
    paths = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((path for path in paths if path.is_file()), None)
