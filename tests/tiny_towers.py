"""Towers that are built in a moment: a text encoder of transformers with a small vocabulary, and settings of models."""

from pathlib import Path

from pipeline.settings.model import Model

WORDS = ("a", "the", "dog", "cat", "man", "horse", "runs", "sits", "on", "beach", "sand", "red", "blue", "two", "with")
WORDS += ("and", "in", "rides", "it", "##s", "##ing")


PADDED = {
    "kind": "timm",
    "model": "mobilenetv2_035",
    "weights": "random",
    "options": {"pad_type": "same"},
    "preprocess": {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.2, 0.5], "interpolation": "bilinear"},
}
"""An image tower whose padding and preprocessing are not timm's own for it."""


def write_text(folder: Path, kind: str = "bert", positions: int = 64, seed: int = 0) -> Path:
    """A folder as transformers' `save_pretrained` writes it, with random weights large enough to show."""
    import torch
    from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    shape = {"vocab_size": 5 + len(WORDS), "max_position_embeddings": positions, "pad_token_id": 0}
    if kind == "distilbert":
        shape |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    else:
        shape |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model(kind, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    _tokenizer(folder)
    return folder


def _tokenizer(folder: Path) -> None:
    from transformers import BertTokenizer

    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)


def write_clip(folder: Path, layers: object = 2) -> str:
    """The name of a random CLIP of open_clip's, of 16 numbers; its image tower is a ResNet where `layers` is a list."""
    import json

    import open_clip
    import torch
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": layers, "width": 8 if isinstance(layers, list) else 32}
    vision |= {} if isinstance(layers, list) else {"head_width": 16, "patch_size": 16}
    text = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = open_clip.CLIP(**config)
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


def tiny(text: Path | str, **keys: object) -> Model:
    """A model of a small ResNet and a text tower, of 16 numbers; `keys` override."""
    table = {
        "image": "timm:test_resnet@random",
        "image_size": 32,
        "text": f"transformers:{text}" if isinstance(text, Path) else text,
        "context": 8,
        "dim": 16,
        "batch": 8,
    }
    return Model.model_validate(table | keys)
