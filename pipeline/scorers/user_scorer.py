"""A user's own scorer, in a Python file outside the project: `kind = "./my_scorer.py"`.

The file has `columns`, a dict of column names and types, and `score(batch)`, which returns a dict of these columns with
a value for each pair, or None. If it has `prepare(image)` as well, pictures are decoded, and `batch.images` holds its
results for RGB pictures. Other keys of the table in the source file are keyword arguments of `score`. The file runs
whenever the source file is read, so slow work belongs in its functions.
"""

import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, JsonValue, PrivateAttr, ValidationInfo, model_validator

from pipeline.scorers.spec import Batch, Columns, Scorer, Spec
from pipeline.settings.fields import existing_path
from pipeline.store.digests import canonical_json

VERSION = 1

TYPES: Mapping[str, pa.DataType] = {
    "float32": pa.float32(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}
"""The types of columns, by the names that a file uses."""


def from_file(table: Any, info: ValidationInfo) -> Any:
    """The fields of `UserScorerSpec` for a table with `kind = "./my_scorer.py"`; other tables unchanged."""
    if not isinstance(table, dict) or not str(table.get("kind")).endswith(".py"):
        return table
    options = {key: value for key, value in table.items() if key != "kind"}
    return {"kind": ".py", "file": existing_path(Path(table["kind"]), info), "options": options}


class UserScorerSpec(Spec):
    """A user's own scorer: a file with `columns` and `score(batch)`. It is read once, with the source file."""

    kind: Literal[".py"]
    file: Path
    options: dict[str, JsonValue] = Field({}, description="keyword arguments of score")
    _code: bytes = PrivateAttr(b"")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self._code = self.file.read_bytes()
        module, name = self._module(), self.file.name
        canonical_json(self.options)  # no infinity
        _check_columns(name, getattr(module, "columns", None))
        _check_function(name, "score(batch)", getattr(module, "score", None), self.options)
        _check_function(name, "prepare(image)", getattr(module, "prepare", _nothing), {})
        return self

    @property
    def looks_at_pictures(self) -> bool:  # type: ignore[override]
        """Whether the file has `prepare`."""
        return hasattr(self._module(), "prepare")

    def columns(self) -> Mapping[str, pa.DataType]:
        """The columns of the file, of type float32, int32, int64, uint64, bool or string."""
        return {name: TYPES[kind] for name, kind in self._module().columns.items()}

    def identity(self) -> Mapping[str, Any]:
        """The digest of the file, and the options. Files that it imports are not part of it."""
        return {"version": VERSION, "file": hashlib.sha256(self._code).hexdigest(), "options": self.options}

    def load(self) -> Scorer:
        """The functions of the file."""
        return UserScorer(self._module(), self.columns(), self.options)

    def _module(self) -> ModuleType:
        return _run(self.file, self._code)


class UserScorer:
    """Calls the functions of the file. Lists become Arrow arrays of the declared type."""

    embedding_dim = None

    def __init__(self, module: ModuleType, columns: Mapping[str, pa.DataType], options: Mapping[str, Any]) -> None:
        self._score, self._columns = functools.partial(module.score, **options), columns
        if hasattr(module, "prepare"):
            self.prepare = module.prepare

    def score(self, batch: Batch) -> Columns:
        """The result of `score` of the file. Raises TypeError if it is no dict."""
        found = self._score(batch)
        if not isinstance(found, Mapping):
            raise TypeError(f"score(batch) returned {type(found).__name__}, not a dict of columns")
        return {
            name: pa.array(values, self._columns.get(name)) if isinstance(values, list) else values
            for name, values in found.items()
        }


@functools.cache
def _run(file: Path, code: bytes) -> ModuleType:
    """The module of the code, without Python's bytecode cache. Raises ValueError if the code fails."""
    module = ModuleType(f"winnow_scorer_{hashlib.sha256(code).hexdigest()[:16]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and pickle look up their module
    try:
        exec(compile(code, file, "exec"), module.__dict__)  # noqa: S102 - the user names the file
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ValueError(f"{file.name} does not run: {type(error).__name__}: {reason}") from error
    return module


def _nothing(image: Any) -> None:
    """For a file without `prepare`."""


def _check_columns(file: str, columns: Any) -> None:
    if not isinstance(columns, dict) or not columns:
        raise ValueError(f'{file} needs columns, a dict like {{"green": "float32"}}')
    for name, kind in columns.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", str(name)):
            raise ValueError(f"{file}: column {name!r} must be lower-case letters, digits and _")
        if kind not in TYPES:
            raise ValueError(f"{file}: column {name!r} is {kind!r}; take one of {', '.join(TYPES)}")


def _check_function(file: str, called: str, function: Any, options: Mapping[str, Any]) -> None:
    if not callable(function):
        raise ValueError(f"{file} needs a function {called}")
    try:
        inspect.signature(function).bind(None, **options)
    except TypeError as error:
        raise ValueError(f"{file}: {called} does not fit its options: {error}") from None
