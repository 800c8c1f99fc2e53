"""The files and addresses that the `location` of a list means."""

import glob
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import ValidationInfo

from pipeline.settings.fields import existing_path

ADDRESS = ("http://", "https://")
"""How the location of a list begins that is not a local file."""

FORMATS = {
    "tsv": "tsv",
    "csv": "csv",
    "parquet": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
}
"""Formats by the ending of a file."""

_COPIES = {
    "hf": 'write dataset = "hf://ORGANISATION/NAME" for a dataset with pictures; copy a list of URLs '
    "with `hf download --repo-type dataset`, or write https://huggingface.co/datasets/NAME/resolve/main/FILE",
    "s3": "copy it with `aws s3 sync`",
    "gs": "copy it with `gcloud storage cp -r`",
}
"""What to do about other schemes."""


def format_of(name: str) -> str | None:
    """The format that the ending of a file's name means, .gz aside; None for an unknown ending."""
    return FORMATS.get(name.lower().removesuffix(".gz").rpartition(".")[2])


def list_files(location: str | tuple[str, ...], format: str | None, info: ValidationInfo) -> tuple[str, ...]:  # noqa: A002
    """The absolute paths and the addresses of a list, sorted, each once. Raises ValueError where there is no file."""
    texts = (location,) if isinstance(location, str) else location
    files = {file for text in texts for file in _expand(text, format, info)}
    if not files:
        raise ValueError("name at least one file")
    return tuple(sorted(files))


def _expand(text: str, format: str | None, info: ValidationInfo) -> list[str]:  # noqa: A002
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if scheme and scheme[1].lower() in ("http", "https"):
        return [scheme[1].lower() + text[len(scheme[1]) :]]
    if scheme and scheme[1].lower() == "file" and urlsplit(text).netloc in ("", "localhost"):
        text = url2pathname(urlsplit(text).path)
    elif scheme:
        hint = _COPIES.get(scheme[1].lower(), "copy it to this machine")
        raise ValueError(f"{scheme[1]}:// is not read, only files and http(s) addresses: {hint}, and name the folder")
    folder = (info.context or {}).get("folder", Path())
    path = Path(folder, Path(text).expanduser())
    if not path.exists() and glob.has_magic(text):
        return _matches(text, folder)
    path = existing_path(Path(text), info)
    return _listed(path, format) if path.is_dir() else [str(path)]


def _matches(pattern: str, folder: Path) -> list[str]:
    """The files that a glob matches. Only the pattern is a glob; the folder of the source file is taken as it is."""
    names = glob.glob(str(Path(pattern).expanduser()), root_dir=folder, recursive=True)  # noqa: PTH207
    files = [path.resolve() for name in names if (path := Path(folder, name)).is_file()]
    if not files:
        raise ValueError(f"no file matches {Path(folder, pattern)}")
    return [str(path) for path in files]


def _listed(folder: Path, format: str | None) -> list[str]:  # noqa: A002
    """The lists in a folder and below. Names that begin with a dot or an underscore are left out, as Spark does."""
    files: dict[str, list[str]] = {}
    for path in folder.rglob("*"):
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        known = format_of(path.name)
        if known and not hidden and path.is_file():
            files.setdefault(known, []).append(str(path))
    if format:
        files = {known: paths for known, paths in files.items() if known == format}
    if not files:
        raise ValueError(f"the folder {folder} has no {format or 'TSV, CSV, Parquet or JSON lines'} file")
    if len(files) > 1:
        raise ValueError(f"the folder {folder} has files of several formats ({', '.join(sorted(files))}): set format")
    ((_, paths),) = files.items()
    return paths
