"""What the tables of a source file share: strictness, and paths that are relative to the file."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

LOCAL_DIR = "local-dir:"
"""Before the folder of an open_clip model."""


class Table(BaseModel):
    """A table of a source file: an unknown key is an error, and what was read stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def existing_path(path: Path, info: ValidationInfo) -> Path:
    """A path relative to the source file that names it. Raises ValueError if nothing is there."""
    found = Path((info.context or {}).get("folder", Path()), path.expanduser()).resolve()
    if not found.exists():
        raise ValueError(f"there is no file {found}")
    return found


def _model(name: str, info: ValidationInfo) -> str:
    return (
        LOCAL_DIR + str(existing_path(Path(name.removeprefix(LOCAL_DIR)), info)) if name.startswith(LOCAL_DIR) else name
    )


def _weights(weights: str | None, info: ValidationInfo) -> str | None:
    return str(existing_path(Path(weights), info)) if weights and weights.endswith(".safetensors") else weights


ExistingPath = Annotated[Path, AfterValidator(existing_path)]
"""A file or folder, relative to the source file. It must exist."""

ModelName = Annotated[str, AfterValidator(_model)]
"""A name of open_clip's or timm's, hf-hub:ORG/REPO, or local-dir:FOLDER relative to the source file."""

Weights = Annotated[str | None, AfterValidator(_weights)]
"""A hub tag, or a .safetensors file relative to the source file."""
