"""What a model that answers questions reads: pixels and token ids, or stored features of all tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.models import device
from pipeline.store.storage import Storage
from training.data.features import OwnEncoder
from training.learners import inputs
from training.learners.vqa import Texts

if TYPE_CHECKING:
    import torch

    from training.encoders.encoders import LoadedEncoder
    from training.vqa.model import Answerer

VERSION = 1

_CHUNK = 256


@dataclass(frozen=True)
class VqaInputs:
    """The inputs of a model whose towers are as they were built. `identity` is that of `training.vqa.build`."""

    model: "Answerer"
    identity: Mapping[str, Any]
    storage: Storage

    @property
    def image_features(self) -> OwnEncoder:
        """The image tower, for features that are stored, [pictures, tokens * width]."""

        def load() -> "LoadedEncoder":
            from training.dual.pictures import tower
            from training.vqa.towers import Flat

            assert self.model.image is not None
            return tower(Flat(self.model.image).eval().to(device.kind()), self.model.preparation)

        made_by = {
            "version": VERSION,
            "image": self.identity["image"],
            "preparation": self.model.preparation.as_json(),
            "device": device.kind(),
            "versions": self._versions,
        }
        return OwnEncoder("vqa", made_by, load)

    @property
    def _versions(self) -> dict[str, str]:
        """Of the libraries that decide features: adapters come later."""
        return {name: version for name, version in self.identity["versions"].items() if name != "peft"}

    def texts(self, questions: Sequence[str], features: bool) -> Texts:
        """Distinct questions; with the text tower's `features` of their tokens, which are computed once and stored.

        Raises ModelError for features that are not finite.
        """
        tokens = self.model.tokenizer(questions)
        ids, found = tokens.ids.int().numpy(), None
        if features:
            settings = self.model.settings
            made_by = {
                "version": VERSION,
                "tokens": True,
                "text": self.identity["text"],
                "context": settings.context,
                "pooling": settings.pooling,
                "device": device.kind(),
                "versions": self._versions,
            }
            found = inputs.stored(self.storage, made_by, questions, lambda: self._encode(tokens.ids))
        return Texts(ids, found, tokens.cut)

    def _encode(self, ids: "torch.Tensor") -> npt.NDArray[np.float32]:
        """Features of all tokens, [questions, tokens, width]; zeros after a question's padding."""
        import torch

        tower = self.model.text.eval().to(device.kind())
        with torch.inference_mode():
            whole = tower.mask(ids).shape[1]
            features = torch.zeros(len(ids), whole, self.model.text_width)
            for at in range(0, len(ids), _CHUNK):
                part = tower(ids[at : at + _CHUNK].to(device.kind())).float().cpu()
                features[at : at + _CHUNK, : part.shape[1]] = part
        found: npt.NDArray[np.float32] = features.numpy()
        return found
