"""SigLIP between open_clip and transformers: the same weights under other names.

Both ways hold for a model with an image tower of timm that pools by attention, and a text tower that reads padding and
projects its last position, which is open_clip's shape of SigLIP. `hidden_act = "gelu"`, the exact GELU, is assumed.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pipeline.errors import ModelError

State = Mapping[str, Tensor]

_PLAIN = (
    ("visual.trunk.pos_embed", "vision_model.embeddings.position_embedding.weight"),
    ("visual.trunk.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual.trunk.norm.", "vision_model.post_layernorm."),
    ("visual.trunk.attn_pool.latent", "vision_model.head.probe"),
    ("visual.trunk.attn_pool.proj.", "vision_model.head.attention.out_proj."),
    ("visual.trunk.attn_pool.norm.", "vision_model.head.layernorm."),
    ("visual.trunk.attn_pool.mlp.", "vision_model.head.mlp."),
    ("text.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("text.token_embedding.", "text_model.embeddings.token_embedding."),
    ("text.ln_final.", "text_model.final_layer_norm."),
    ("text.text_projection.", "text_model.head."),
    ("logit_scale", "logit_scale"),
    ("logit_bias", "logit_bias"),
)
_BLOCKS = (
    ("visual.trunk.blocks.", "vision_model.encoder.layers."),
    ("text.transformer.resblocks.", "text_model.encoder.layers."),
)
_INSIDE = (
    ("norm1.", "layer_norm1."),
    ("norm2.", "layer_norm2."),
    ("attn.proj.", "self_attn.out_proj."),
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("attn.out_proj.", "self_attn.out_proj."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("mlp.fc", "mlp.fc"),
)
_FUSED = ("attn.qkv.", "attn.in_proj_")
_POOL = "visual.trunk.attn_pool."
_HEAD = "vision_model.head.attention.in_proj_"


def to_transformers(state: State) -> dict[str, Tensor]:
    """The weights of an open_clip SigLIP under the names of `SiglipModel`. Raises ModelError for another model."""
    named: dict[str, Tensor] = {}
    for key in state:
        for name, part in _parts(key, state[key]):
            named[name] = part.reshape(1) if name.startswith("logit") else part
    for kind in ("weight", "bias"):
        query, rest = f"{_POOL}q.{kind}", f"{_POOL}kv.{kind}"
        if query not in state or rest not in state:
            raise ModelError(f"no SigLIP of open_clip's: {query} or {rest} is missing")
        named[_HEAD + kind] = torch.cat([state[query], state[rest]])
    position = "vision_model.embeddings.position_embedding.weight"
    named[position] = named[position][0]
    return {key: value.contiguous() for key, value in named.items()}


def from_transformers(state: State, like: Sequence[str]) -> dict[str, Tensor]:
    """The weights of a `SiglipModel` under open_clip's names, which are `like`. Raises ModelError for a missing one."""
    own = {}
    for key in like:
        kind = key.rpartition(".")[2]
        try:
            if key.startswith((f"{_POOL}q.", f"{_POOL}kv.")):
                whole = state[_HEAD + kind]
                third = len(whole) // 3
                own[key] = whole[:third] if key.startswith(f"{_POOL}q.") else whole[third:]
                continue
            parts = [state[name] for name in _names(key)]
        except KeyError as error:
            raise ModelError(f"no SiglipModel of transformers: {error.args[0]} is missing") from error
        own[key] = torch.cat(parts) if len(parts) > 1 else parts[0]
        if key.startswith("logit"):
            own[key] = own[key].reshape(())
        elif key == "visual.trunk.pos_embed":
            own[key] = own[key][None]
    return {key: value.contiguous() for key, value in own.items()}


def _parts(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if key.startswith((f"{_POOL}q.", f"{_POOL}kv.")):
        return
    names = _names(key)
    yield from zip(names, value.chunk(len(names)) if len(names) > 1 else (value,), strict=True)


def _names(key: str) -> list[str]:
    """The names at transformers of a weight of open_clip's: three for queries, keys and values in one."""
    for ours, theirs in _PLAIN:
        if key.startswith(ours):
            return [theirs + key.removeprefix(ours)]
    for ours, theirs in _BLOCKS:
        if key.startswith(ours):
            number, _, inside = key.removeprefix(ours).partition(".")
            for fused in _FUSED:
                if inside.startswith(fused):
                    kind = inside.removeprefix(fused)
                    return [f"{theirs}{number}.self_attn.{each}_proj.{kind}" for each in "qkv"]
            for one, other in _INSIDE:
                if inside.startswith(one):
                    return [f"{theirs}{number}.{other}{inside.removeprefix(one)}"]
    raise ModelError(f"no SigLIP of open_clip's shape: it has a weight {key}")
