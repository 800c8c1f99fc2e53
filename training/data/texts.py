"""Captions, and the texts that held-out pictures are compared with, in the space of a frozen text tower."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.models.clip_weights import find_model
from pipeline.settings.encoder import Network
from training.data.versions import Versions
from training.encoders.finite import to_float16

if TYPE_CHECKING:
    from pipeline.models.clip import Clip

Embeddings = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Texts:
    """L2-normalised embeddings of texts.

    `plain`, [rows, dim], has the captions of a pool. `heldout`, [texts, dim], has the texts that held-out pictures are
    compared with: their captions, or prompts of classes. `versions`, by "text" and "both", [pairs, views, dim], has the
    augmented captions.
    """

    plain: Embeddings
    heldout: Embeddings
    versions: Mapping[str, Embeddings]

    @classmethod
    def read(
        cls, encoder: Network, captions: Sequence[str], heldout: Sequence[Sequence[str]], versions: Versions | None
    ) -> "Texts":
        """Embed texts with the text tower of an open_clip encoder. Each of `heldout` is the mean of its wordings.

        Raises ModelError as the encoder does.
        """
        from pipeline.models.clip import Clip

        clip = Clip(find_model(encoder.model, encoder.weights, encoder.quick_gelu))
        starts = np.cumsum([0, *map(len, heldout)])[:-1]
        means = np.add.reduceat(clip.encode_captions([each for wordings in heldout for each in wordings]), starts)
        augmented: dict[str, Embeddings] = {}
        if versions is not None:
            for how, texts in versions.captions.items():
                shape = versions.refused[how].shape
                augmented[how] = _embed(clip, texts).reshape(*shape, -1)
        unit = means / np.linalg.norm(means, axis=1, keepdims=True)
        held = to_float16(unit, lambda row: f"the text {heldout[row][0]!r}")
        return cls(_embed(clip, captions), held, augmented)

    def seen(self, how: bool | str, rows: npt.NDArray[np.int64], versions: Versions | None) -> Embeddings:
        """The texts of pool rows for a learner, the plain caption first: [rows, 1, dim], or [rows, 1 + views, dim].

        `how` is the augmentation, as in `training.studies.learner.Cell`.
        """
        plain = self.plain[rows][:, None]
        if not isinstance(how, str) or versions is None:
            return plain
        return versions.select(how, rows, plain, self.versions["text" if how == "text" else "both"])


def _embed(clip: "Clip", captions: Sequence[str]) -> Embeddings:
    return to_float16(clip.encode_captions(captions), lambda row: f"the caption {captions[row]!r}")
