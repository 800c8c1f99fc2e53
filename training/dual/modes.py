"""Evaluation mode for what does not train, so that a frozen part has no dropout and its statistics do not move."""

from torch import nn

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def rest(module: nn.Module, batch_norm: bool) -> None:
    """Put into evaluation mode what has no parameter that trains, and, with `batch_norm`, every batch norm."""
    parameters = list(module.parameters())
    idle = bool(parameters) and not any(each.requires_grad for each in parameters)
    if idle or (batch_norm and isinstance(module, _BATCH_NORMS)):
        module.eval()
        return
    for child in module.children():
        rest(child, batch_norm)
