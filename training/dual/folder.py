"""A dual encoder as a folder: saved at once or not at all, and loaded without the files that it was built from.

`model.json` describes the model, `training.json` how it was trained. Where open_clip can hold the model, the folder is
also one of open_clip's (`local-dir:FOLDER`), which a scorer of kind clip takes as it is.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError, StorageError
from pipeline.models.clip_folder import IMAGE, MODEL, OPEN_CLIP
from pipeline.models.training_record import RECORD
from pipeline.process.scratch import temporary_folder
from pipeline.settings.encoder import Network
from pipeline.settings.fields import LOCAL_DIR, Table
from pipeline.settings.model import Model, OpenClipText, SmallText, TransformersText
from pipeline.store.disk import sync
from training.dual import image_towers, misfit, open_clip_format, open_clip_text, tokens, transformers_text
from training.dual.assembly import branch, start
from training.dual.distilbert import bert_config
from training.dual.encoder import DualEncoder
from training.dual.pictures import Preparation

WEIGHTS = "open_clip_model.safetensors"

FORMAT = 1


def save(
    model: DualEncoder, folder: Path, record: Mapping[str, Any], beside: Callable[[Path], object] | None = None
) -> str | None:
    """Write the folder, in place of an older model there. Returns why open_clip cannot hold the model; None if it can.

    `record` is the content of training.json, and `beside` writes other files into the folder. Raises StorageError if
    the folder holds something else, and for a full disk: then what was there is unchanged.
    """
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MODEL).is_file():
        raise StorageError(f"{folder} exists, and is not the folder of a model: name another")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent) as scratch:
            new = scratch / "new"
            new.mkdir()
            why = _write(model, new, folder)
            _json(new / RECORD, record)
            if beside:
                beside(new)
            for written in (*new.rglob("*"), new):
                sync(written)
            if folder.exists():
                folder.rename(scratch / "old")
            new.rename(folder)
            sync(folder.parent)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return why


def load(folder: Path) -> DualEncoder:
    """The model of a folder, on the CPU, in evaluation mode; nothing of it trains. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        table = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        recipe = table["recipe"]
        named = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder} is not the folder of a model that winnow trained: {error}") from error
    settings = _settings(table["settings"])
    preparation = Preparation.of_json(recipe["preparation"])
    image = image_towers.rebuild(recipe["image"], preparation)
    if recipe["text"]["kind"] == "transformers":
        text = transformers_text.rebuild(recipe["text"], folder)
        tokenizer = tokens.of_transformers(folder, settings.context)
    else:
        text = open_clip_text.rebuild(recipe["text"])
        tokenizer = open_clip_text.tokenizer(recipe["text"]["config"], folder)
    model = DualEncoder(
        settings, branch(settings, image, IMAGE), branch(settings, text, "text"), preparation, tokenizer, (image, text)
    )
    start(model)
    own = open_clip_format.from_state(model, named)
    if faults := misfit.named_keys(set(model.state_dict()) - set(own)):
        raise ModelError(f"{folder / WEIGHTS} does not fit {MODEL}: {faults}")
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise ModelError(f"{folder / WEIGHTS} does not fit {MODEL}: {misfit.from_torch(error)}") from error
    return model.requires_grad_(False).eval()


def _write(model: DualEncoder, scratch: Path, folder: Path) -> str | None:
    """Write all files but training.json. Paths in open_clip_config.json are those of the final folder."""
    from safetensors.torch import save_file

    why, (image, text) = open_clip_format.obstacle(model), model.towers
    if text.recipe["kind"] == "transformers":
        config = open_clip_format.transformers_config(model)
        (bert_config(config) if config.model_type == "distilbert" else config).save_pretrained(scratch)
    model.tokenizer.save(scratch)
    if image.recipe.get("options"):
        (scratch / IMAGE).mkdir()
        described = {"architecture": image.recipe["model"], "model_args": image.recipe["options"], "pretrained_cfg": {}}
        _json(scratch / IMAGE / "config.json", described)
    if why is None:
        _json(scratch / OPEN_CLIP, open_clip_format.config(model, str(folder / IMAGE), str(folder)))
    recipe = {"image": image.recipe, "text": text.recipe, "preparation": model.preparation.as_json()}
    settings = model.settings.model_dump(mode="json")
    for tower in ("image", "text"):
        settings[tower] = {key: _without_folder(value) for key, value in settings[tower].items()}
    _json(scratch / MODEL, {"format": FORMAT, "settings": settings, "recipe": recipe, "not_open_clip": why})
    save_file(open_clip_format.state(model), scratch / WEIGHTS)
    return why


def _without_folder(value: Any) -> Any:
    """The name of a file or of a folder in place of its path."""
    if not isinstance(value, str):
        return value
    prefix = LOCAL_DIR if value.startswith(LOCAL_DIR) else ""
    path = Path(value.removeprefix(prefix))
    return prefix + path.name if path.is_absolute() else value


def _settings(table: Mapping[str, Any]) -> Model:
    """The settings that were saved. Files that they name may be gone, so they are not checked again."""
    kinds: dict[str, type[Table]] = {"transformers": TransformersText, "open_clip": OpenClipText, "small": SmallText}
    towers = {
        "image": Network.model_construct(**table["image"]),
        "text": kinds[table["text"]["kind"]].model_construct(**table["text"]),
    }
    return Model.model_construct(**{**table, **towers})


def _json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
