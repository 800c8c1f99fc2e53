"""A tower without its head, and how it is written down.

`recipe` is JSON from which the tower can be built again without its first weights. `config` is what open_clip calls
vision_cfg or text_cfg. `obstacle` says why open_clip cannot hold the tower; None if it can.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """A trunk that gives features [batch, width], float32, on the CPU.

    `projection` [dim, width] is the pretrained map into the embedding space of an open_clip tower. `fixed` is set for a
    tower that includes its projection and cannot be parted from it: `width` is the size of its embeddings. `scale`, a
    logarithm, and `bias` are those of its checkpoint's logits.
    """

    trunk: nn.Module
    width: int
    recipe: Mapping[str, Any]
    config: Mapping[str, Any]
    projection: Tensor | None = None
    fixed: bool = False
    quick_gelu: bool | None = None
    obstacle: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    scale: float | None = None
    bias: float | None = None

    @property
    def dim(self) -> int | None:
        """The size of the embeddings of its own projection; None without one."""
        if self.fixed:
            return self.width
        return None if self.projection is None else len(self.projection)


def of_open_clip(
    tower: Any, name: str, recipe: Mapping[str, Any], quick_gelu: bool | None, identity: Mapping[str, Any]
) -> Part:
    """A tower of open_clip's without its projection, which is the tower's parameter `name`, if it can be parted."""
    projection, width, own = getattr(tower, name, None), recipe["embed_dim"], None
    if isinstance(projection, nn.Parameter):
        setattr(tower, name, None)
        width, own = projection.shape[0], projection.detach().T
    return Part(
        tower, width, recipe, recipe["config"], own, fixed=own is None, quick_gelu=quick_gelu, identity=identity
    )
