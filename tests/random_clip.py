"""A small random CLIP of transformers', and the same weights as a folder that open_clip reads."""

import json

import torch
from safetensors.torch import save_file

TEXT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
VISION = {**TEXT, "image_size": 48, "patch_size": 16}
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3},
}


def reference(activation):
    """transformers' CLIPModel; its weights are large enough that the activation shows."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(5)
    ids = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**TEXT, **ids, "vocab_size": 49408, "hidden_act": activation},
        vision_config={**VISION, "hidden_act": activation},
        projection_dim=24,
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(4)
            elif name.endswith("bias"):
                weight.normal_(std=0.2)
    return model


def save(model, folder, quick_gelu, config=CONFIG):
    """The folder that `local-dir:` names."""
    folder.mkdir(exist_ok=True)
    described = {"model_cfg": {**config, "quick_gelu": quick_gelu}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    save_file(converted(model.state_dict()), folder / "open_clip_model.safetensors")
    return folder


def converted(weights):
    """transformers' names to open_clip's."""
    names = {
        "logit_scale": "logit_scale",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    }
    for part in ("weight", "bias"):
        names[f"text_model.final_layer_norm.{part}"] = f"ln_final.{part}"
        names[f"vision_model.pre_layrnorm.{part}"] = f"visual.ln_pre.{part}"
        names[f"vision_model.post_layernorm.{part}"] = f"visual.ln_post.{part}"
    found = {to: weights[name].clone() for name, to in names.items()}
    found["text_projection"] = weights["text_projection.weight"].T.contiguous()
    found["visual.proj"] = weights["visual_projection.weight"].T.contiguous()
    for tower, prefix in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
        for layer in range(TEXT["num_hidden_layers"]):
            found |= _block(weights, f"{tower}.encoder.layers.{layer}.", f"{prefix}.resblocks.{layer}.")
    return found


def _block(weights, of, to):
    found = {}
    for part in ("weight", "bias"):
        heads = [weights[f"{of}self_attn.{each}_proj.{part}"] for each in "qkv"]
        found[f"{to}attn.in_proj_{part}"] = torch.cat(heads)
        for name, called in {
            "self_attn.out_proj": "attn.out_proj",
            "layer_norm1": "ln_1",
            "layer_norm2": "ln_2",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
        }.items():
            found[f"{to}{called}.{part}"] = weights[f"{of}{name}.{part}"].clone()
    return found
