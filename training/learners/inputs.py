"""What a dual encoder reads of pictures and captions: pixels and tokens, or the stored features of its frozen towers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.models import device
from pipeline.store.digests import digest
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.data.features import OwnEncoder
from training.data.streams import Stored
from training.encoders.finite import to_float16

if TYPE_CHECKING:
    import torch

    from training.dual.encoder import DualEncoder
    from training.encoders.encoders import LoadedEncoder

VERSION = 1

_CHUNK = 256


def image_features(model: "DualEncoder", identity: Mapping[str, Any]) -> OwnEncoder:
    """The frozen image tower without its head. `identity` is that of the whole model."""

    def load() -> "LoadedEncoder":
        from training.dual.pictures import tower

        return tower(model.visual.trunk, model.preparation)

    made_by = {
        "image": identity["image"],
        "preparation": model.preparation.as_json(),
        "device": device.kind(),
        "versions": identity["versions"],
    }
    return OwnEncoder("dual", made_by, load)


class Captions(NamedTuple):
    """Texts for a model: tokens, or features of the frozen text tower; and how many distinct texts were cut."""

    texts: Stored
    cut: int


def captions(
    model: "DualEncoder", identity: Mapping[str, Any], storage: Storage, texts: Sequence[str], place: npt.NDArray[np.int64]
) -> Captions:
    """The input of the text tower, or of the head of a frozen one, for distinct `texts`; `place` as of `Stored`.

    Features of a frozen tower are computed once and stored. Raises ModelError for features that are not finite.
    """
    tokens = model.tokenizer(texts)
    if not model.text.frozen:
        return Captions(Stored(tokens.ids.to("cpu").int().numpy(), place), tokens.cut)
    stage = Stage(
        "features/texts",
        {
            "version": VERSION,
            "text": identity["text"],
            "context": model.settings.context,
            "pooling": model.settings.pooling,
            "device": device.kind(),
            "versions": identity["versions"],
        },
    )
    key = f"{stage.folder}/{digest(list(texts))[:16]}.npz"
    if not storage.done(key):
        stage.describe(storage)
        encoded = to_float16(_encode(model, tokens.ids), lambda row: f"the text {texts[row]!r}")
        with storage.scratch() as scratch:
            np.savez(scratch / "features.npz", texts=encoded)
            storage.put_file(key, scratch / "features.npz")
    with np.load(storage.fetch(key), allow_pickle=False) as stored:
        return Captions(Stored(stored["texts"], place), tokens.cut)


def _encode(model: "DualEncoder", ids: "torch.Tensor") -> npt.NDArray[np.float32]:
    """Features of the text trunk, float32 [texts, width]. Texts of a length go together, so that little is padding."""
    import torch

    trunk = model.text.trunk.eval().to(device.kind())
    order = ids.ne(getattr(trunk, "pad", 0)).sum(dim=1).argsort(stable=True)
    with torch.inference_mode():
        parts = [trunk(ids[rows].to(device.kind())).float().cpu() for rows in order.split(_CHUNK)]
    features: npt.NDArray[np.float32] = torch.cat(parts)[order.argsort()].numpy()
    return features
