"""What all tables of a source file share: unknown keys are errors, and paths are relative to the file."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

LOCAL_DIR = "local-dir:"
"""The prefix of a model that is a local open_clip folder."""


COLUMN = "[a-z][a-z0-9_]{0,62}"
"""The pattern of the name of a scorer's column that a person chooses."""


class Table(BaseModel):
    """A table of a source file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def existing_path(path: Path, info: ValidationInfo) -> Path:
    """A path relative to the source file that names it. Raises ValueError if it does not exist."""
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
