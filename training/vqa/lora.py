"""Low-rank adapters on the modules of a model, by peft (Hu et al. 2021): which modules, which of them train, merging.

An adapter on a module whose `forward` is never called gets no gradient and changes nothing. `out_proj` of torch's
MultiheadAttention is such a module, and so is the pooler of a tower whose last hidden states are read.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.settings.vqa import Lora
from training.vqa.model import Answerer

KEY_VALUE = ("key", "value", "k_proj", "v_proj", "k_lin", "v_lin", "qkv")
"""Ends of the names of keys and values in self-attention. timm has one module for queries, keys and values."""

STUDY = ("dense", "word_embeddings", "query", "key", "value", "position_embeddings", "out_proj")
"""The target modules of the study of DINOv2 and RoBERTa on VQAv2."""

RENAMED = ("q_proj", "k_proj", "v_proj", "o_proj")
"""What transformers 5 calls DINOv2's query, key, value and dense."""

_HEAD = "head."


def targets(model: nn.Module, settings: Lora) -> list[str]:
    """The full names of the modules that get adapters, in order. Raises ModelError if there are none.

    "key-value" and "linear" are looked for in the towers alone, where all of them train. Other names are looked for in
    the head as well, as the study does.
    """
    chosen, wanted = [], settings.targets
    for name, module in model.named_modules():
        end, fits = name.rpartition(".")[2], _adaptable(module)
        if wanted == "linear":
            found = fits and not isinstance(module, nn.Embedding) and not name.startswith(_HEAD)
        elif wanted == "key-value":
            found = fits and end in KEY_VALUE and not name.startswith(_HEAD)
        else:
            found = fits and end in ((*STUDY, *RENAMED) if wanted == "study" else wanted)
        if found:
            chosen.append(name)
    if not chosen:
        raise ModelError(f'no module for adapters is called {_named(settings)}: set lora.targets = "linear"')
    return chosen


def add(model: nn.Module, settings: Lora, seed: int) -> list[str]:
    """Put adapters on the `targets`, and let nothing train but them, and the head if the settings say so.

    Returns the names of the modules. The model gives the same answers as before. Raises ModelError.
    """
    from peft import LoraConfig, inject_adapter_in_model

    chosen = targets(model, settings)
    made = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=chosen, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(made, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or (settings.head and name.startswith(_HEAD)))
    return chosen


def without_gradient(model: nn.Module, loss: Callable[[], torch.Tensor]) -> list[str]:
    """The names of the adapted modules that no gradient of a `loss` reaches. Gradients are cleared before and after."""
    model.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]
    reached: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        module, found, _ = name.partition(".lora_")
        if found:
            moves = parameter.grad is not None and bool(parameter.grad.ne(0).any())
            reached[module] = reached.get(module, False) or moves
    model.zero_grad()
    return [module for module, moves in reached.items() if not moves]


def merge(model: nn.Module) -> None:
    """Add every adapter to the weights of its module, and remove it. Nothing trains afterwards."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in adapted:
        layer: Any = module
        layer.merge(safe_merge=True)
        parent, _, end = name.rpartition(".")
        setattr(model.get_submodule(parent), end, layer.get_base_layer())
    model.requires_grad_(False)


def counts(model: nn.Module) -> Mapping[str, int]:
    """`adapters`: the parameters of adapters; `trained`: all that train; `parameters`: all, adapters included."""
    named = list(model.named_parameters())
    return {
        "adapters": sum(each.numel() for name, each in named if "lora_" in name),
        "trained": sum(each.numel() for _, each in named if each.requires_grad),
        "parameters": sum(each.numel() for _, each in named),
    }


def dead(model: Answerer) -> list[str]:
    """`without_gradient` for noise in place of pictures, and a short question."""
    ids = model.tokenizer(["what is it"] * 2).ids.to(model.device)
    size = model.preparation.size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(model.device)
    model.eval()
    return without_gradient(model, lambda: model(pixels, ids).square().sum())


def _adaptable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding) or (
        isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    )


def _named(settings: Lora) -> str:
    wanted = settings.targets
    return repr(wanted) if isinstance(wanted, str) else " or ".join(wanted)
