"""Which parts of a dual encoder train, and at which rates."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from pipeline.errors import ModelError
from training.dual.encoder import DualEncoder

Blocks = int | Literal["all"]


def freeze(model: DualEncoder) -> None:
    """Let train what the settings name; the temperature always does. Raises ModelError.

    Heads train as well. The own projection of a frozen tower does not, so that its embeddings do not move.
    """
    settings = model.settings
    for name, trunk, wanted in (
        ("image", model.visual.trunk, settings.image_blocks),
        ("text", model.text.trunk, settings.text_blocks),
    ):
        train_only(trunk, wanted, name)
    if settings.checkpointing:
        _checkpoint(model)
    if settings.head == "own":
        for branch in (model.visual, model.text):
            branch.head.requires_grad_(not branch.frozen)
        if model.visual.frozen and model.text.frozen:
            raise ModelError('nothing would train: both towers are frozen, with head = "own"; raise text_blocks')
    heads = [*model.visual.head.parameters(), *model.text.head.parameters()]
    if not heads and model.visual.frozen and model.text.frozen:
        raise ModelError("nothing would train: both towers are frozen, and neither has a head; raise text_blocks")


def train_only(trunk: nn.Module, last: Blocks, name: str) -> None:
    """Let the last blocks of a trunk train, and nothing else of it. Raises ModelError if it has fewer."""
    groups = blocks(trunk)
    if last != "all" and last > len(groups):
        raise ModelError(f'{name}_blocks = {last}: the {name} tower has {len(groups)} blocks; set fewer, or "all"')
    kept = groups if last == "all" else groups[len(groups) - last :]
    training = {parameter for group in kept for parameter in group}
    for parameter_name, parameter in trunk.named_parameters():
        parameter.requires_grad_(parameter_name in training)


def blocks(trunk: nn.Module) -> list[list[str]]:
    """The names of all parameters of a trunk by block, from the first. What comes before or after belongs to one.

    For timm these are its own layer groups, of which the first is the stem. For transformers they are the layers, the
    embeddings going with the first and what follows the last with it.
    """
    matcher: Any = getattr(trunk, "group_matcher", None)
    if matcher is not None:
        from timm.models import group_parameters

        groups = group_parameters(trunk, matcher())
        return [list(groups[key]) for key in sorted(groups)]
    names = [name for name, _ in trunk.named_parameters()]
    prefixes = [f"{prefix}." for prefix in _layers(trunk)]
    found: list[list[str]] = [[] for _ in prefixes]
    at = 0
    for name in names:
        at = next((place for place, prefix in enumerate(prefixes) if name.startswith(prefix)), at)
        found[at].append(name)
    return found


def _layers(trunk: nn.Module) -> Sequence[str]:
    """The names of the layers: of the longest list of modules, or of the children that have parameters."""
    lists = [(name, each) for name, each in trunk.named_modules() if isinstance(each, nn.ModuleList)]
    if lists:
        name, longest = max(lists, key=lambda each: len(each[1]))
        return [f"{name}.{place}" for place in range(len(longest))]
    return [name for name, child in trunk.named_children() if any(True for _ in child.parameters())]


def parameter_groups(model: DualEncoder) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with `name`, `lr` and `weight_decay`, without empty ones and what is frozen.

    Norms, biases, the temperature and the bias of the objective have no weight decay.
    """
    settings = model.settings
    rates = {"image": settings.image_rate, "text": settings.text_rate, "heads": settings.head_rate}
    groups = []
    for name, module in model.named_parts():
        parameters = [each for each in module.parameters() if each.requires_grad]
        if name == "heads":
            own = [model.logit_scale] if model.logit_bias is None else [model.logit_scale, model.logit_bias]
            parameters += [each for each in own if each.requires_grad]
        for decays in (True, False):
            chosen = [each for each in parameters if (each.ndim > 1) is decays]
            decay = settings.weight_decay if decays else 0.0
            label = name if decays else f"{name}, no decay"
            if chosen:
                groups.append({"name": label, "params": chosen, "lr": rates[name], "weight_decay": decay})
    return groups


def _checkpoint(model: DualEncoder) -> None:
    for branch, name in ((model.visual, "image"), (model.text, "text")):
        if branch.frozen:
            continue
        trunk: Any = branch.trunk
        try:
            if name == "text" and hasattr(trunk, "pooling"):
                trunk.transformer.gradient_checkpointing_enable({"use_reentrant": False})
            else:
                trunk.set_grad_checkpointing(True)
        except (AttributeError, ValueError, AssertionError) as error:
            raise ModelError(f"the {name} tower cannot checkpoint activations: set checkpointing = false") from error
