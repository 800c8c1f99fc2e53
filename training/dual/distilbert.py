"""DistilBERT as the BERT that computes the same: one whose embedding of token types is zero.

open_clip has no text tower of type distilbert. The two differ in the names of weights and in that embedding.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_LAYER = (
    (r"^transformer\.layer\.", "encoder.layer."),
    (r"\.attention\.q_lin\.", ".attention.self.query."),
    (r"\.attention\.k_lin\.", ".attention.self.key."),
    (r"\.attention\.v_lin\.", ".attention.self.value."),
    (r"\.attention\.out_lin\.", ".attention.output.dense."),
    (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
    (r"\.ffn\.lin1\.", ".intermediate.dense."),
    (r"\.ffn\.lin2\.", ".output.dense."),
    (r"\.output_layer_norm\.", ".output.LayerNorm."),
)


def to_bert(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights under BERT's names; those without the prefix as they are."""
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix):
            for old, new in _LAYER:
                name = re.sub(old, new, name)
            name = prefix + name
        renamed[name] = value
    words = renamed[f"{prefix}embeddings.word_embeddings.weight"]
    renamed[f"{prefix}embeddings.token_type_embeddings.weight"] = torch.zeros(1, words.shape[1])
    return renamed


def bert_config(config: Any) -> Any:
    """The config of that BERT."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        intermediate_size=config.hidden_dim,
        hidden_act=config.activation,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=1,
        layer_norm_eps=1e-12,
        pad_token_id=config.pad_token_id,
    )
