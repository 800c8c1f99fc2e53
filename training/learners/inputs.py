"""What a dual encoder reads of pictures and captions: pixels and tokens, or stored features of frozen towers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.models import device
from pipeline.store.digests import digest
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.data.features import OwnEncoder
from training.encoders.finite import to_float16
from training.learners.divergence import check_scores
from training.learners.pair_loss import project
from training.measures.metrics import Units

if TYPE_CHECKING:
    import torch

    from training.dual.encoder import Branch, DualEncoder
    from training.encoders.encoders import LoadedEncoder

VERSION = 1

_CHUNK = 256


class TextInputs(NamedTuple):
    """Distinct texts for the text tower, int32 [texts, context], or for its head, float16 [texts, width].

    `cut` of them are longer than the tower reads.
    """

    values: npt.NDArray[Any]
    cut: int


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model. `identity` is that of the whole untrained model, from `training.dual.build`."""

    model: "DualEncoder"
    identity: Mapping[str, Any]
    storage: Storage

    @property
    def image_features(self) -> OwnEncoder:
        """The image tower without its head, for features that are stored. It must be frozen."""

        def load() -> "LoadedEncoder":
            from training.dual.pictures import tower

            return tower(self.model.visual.trunk.eval().to(device.kind()), self.model.preparation)

        made_by = {
            "image": self.identity["image"],
            "preparation": self.model.preparation.as_json(),
            "device": device.kind(),
            "versions": self.identity["versions"],
        }
        return OwnEncoder("dual", made_by, load)

    def texts(self, texts: Sequence[str]) -> TextInputs:
        """Of distinct texts. Features of a frozen tower are computed once and stored.

        Raises ModelError for features that are not finite.
        """
        tokens = self.model.tokenizer(texts)
        if not self.model.text.frozen:
            return TextInputs(tokens.ids.int().numpy(), tokens.cut)
        settings = self.model.settings
        made_by = {
            "version": VERSION,
            "text": self.identity["text"],
            "context": settings.context,
            "pooling": settings.pooling,
            "device": device.kind(),
            "versions": self.identity["versions"],
        }
        encoded = stored(self.storage, made_by, texts, lambda: self._encode(tokens.ids))
        return TextInputs(encoded, tokens.cut)

    def _encode(self, ids: "torch.Tensor") -> npt.NDArray[np.float32]:
        """Features of the text trunk, [texts, width]. Texts of a length go together, so that little is padding."""
        import torch

        trunk = self.model.text.trunk.eval().to(device.kind())
        order = ids.ne(getattr(trunk, "pad", 0)).sum(dim=1).argsort(stable=True)
        with torch.inference_mode():
            parts = [trunk(ids[rows].to(device.kind())).float().cpu() for rows in torch.split(order, _CHUNK)]
        features: npt.NDArray[np.float32] = torch.cat(parts)[order.argsort()].numpy()
        return features


def stored(
    storage: Storage,
    made_by: Mapping[str, Any],
    texts: Sequence[str],
    encode: Callable[[], npt.NDArray[np.float32]],
) -> npt.NDArray[np.float16]:
    """Features of texts [texts, ...], computed once and stored. Raises ModelError if one is not finite."""
    stage = Stage("features/texts", dict(made_by))
    key = f"{stage.folder}/{digest(list(texts))[:16]}.npz"
    if not storage.done(key):
        stage.describe(storage)
        encoded = to_float16(encode(), lambda row: f"the text {texts[row]!r}")
        with storage.scratch() as scratch:
            np.savez(scratch / "features.npz", texts=encoded)
            storage.put_file(key, scratch / "features.npz")
    with np.load(storage.fetch(key), allow_pickle=False) as kept:
        found: npt.NDArray[np.float16] = kept["texts"]
        return found


def embed(model: "DualEncoder", branch: "Branch", inputs: Iterable["torch.Tensor"]) -> Units:
    """Normalised embeddings [rows, dim] of chunks of inputs, in evaluation mode.

    Raises TrainingError if one is not finite.
    """
    import torch
    from torch.nn.functional import normalize

    model.eval()
    with torch.inference_mode():
        parts = [normalize(project(model, branch, chunk), dim=-1).cpu() for chunk in inputs]
    units: Units = check_scores(torch.cat(parts)).numpy()
    return units


def chunks(values: npt.NDArray[Any]) -> Iterator["torch.Tensor"]:
    """Rows of features or tokens as a model reads them."""
    import torch

    for at in range(0, len(values), _CHUNK):
        part = torch.from_numpy(values[at : at + _CHUNK])
        yield part.float() if part.is_floating_point() else part.long()
