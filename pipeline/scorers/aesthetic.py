"""LAION's aesthetic predictors: how much people would like a picture, from its embedding.

v1 (LAION-AI/aesthetic-predictor) is one linear layer, v2 (christophschuhmann/improved-aesthetic-predictor,
sac+logos+ava1-l14-linearMSE) five layers without activations. Each is one affine map of the L2-normalised image
embedding of the OpenAI model that it was trained with.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from pipeline.errors import ModelError
from pipeline.models.pinned import fetch
from pipeline.scorers.spec import NORM, Columns, Head, HeadSpec, Spec
from pipeline.settings.fields import existing_path
from pipeline.store.digests import file_digest

VERSION = 1

TRAINED_WITH = {
    "725d782dab471e1f8252c3d5e63820fefd0e7a24da3f53d99ce444f5580f93f5": "ViT-B-32",
    "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f": "ViT-B-32",
    "dd0183e0f9aa1716d91f2e47832ed0e41f3e002185ec564d605fff722ae57ae0": "ViT-B-16",
    "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0": "ViT-B-16",
    "d01449b7aba407d19a5ec7ea69b06db7d07b898bd5137b41e6742b7cecd6d87b": "ViT-L-14",
    "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba": "ViT-L-14",
    "02861b8549fd3c4a50a325d64e8350f5bc1ee776d9b1863250aa414851847905": "ViT-L-14",
    "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0": "ViT-L-14",
}
"""sha256 of LAION's weights, as safetensors and as published -> the OpenAI model. Models can have the same embedding
size: the head of another model gives wrong scores without an error."""


def _resolve(weights: str, info: ValidationInfo) -> str:
    return weights if weights.startswith("https://") else str(existing_path(Path(weights), info))


class AestheticSpec(HeadSpec):
    """An aesthetic score: an affine map of the image embedding."""

    kind: Literal["aesthetic"]
    weights: Annotated[str, AfterValidator(_resolve)] = Field(
        description="a .safetensors or .pth file relative to this one, or an https address with its sha256"
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the weights file")

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.weights.startswith("https://") and not self.sha256:
            raise ValueError("weights from an address need sha256, the digest of the file")
        return self

    def columns(self) -> Mapping[str, pa.DataType]:
        """score: about 1 (ugly) to 10, unbounded."""
        return {"score": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """The digest of the weights."""
        return {"version": VERSION, "weights": self._digest()}

    def check(self, of: Spec) -> None:
        """Raises ModelError for weights of LAION's that were trained with another model than `of`."""
        wanted = TRAINED_WITH.get(self._digest())
        model, _, weights = (of.encoder or "").partition("/")
        fits = model == f"{wanted}-quickgelu" and (weights == "openai" or weights.endswith(".safetensors"))
        if wanted and not fits:
            raise ModelError(
                f"these aesthetic weights were trained with {wanted}-quickgelu/openai, and {self.of!r} is "
                f"{of.encoder}: scores would be wrong; use the weights for that model"
            )

    def load(self, of: Callable[[], Any] | None = None) -> Head:
        """The affine map. Raises ModelError for weights that are missing, changed, or of another shape."""
        self._digest()
        if self.weights.startswith("https://"):
            assert self.sha256
            path = fetch(self.weights, self.sha256)
        else:
            path = Path(self.weights)
        return Aesthetic(*_fold(_read_tensors(path), path.name))

    def _digest(self) -> str:
        """The digest of the weights, without fetching them. Raises ModelError if a file differs from `sha256`."""
        if self.weights.startswith("https://"):
            assert self.sha256
            return self.sha256
        found = file_digest(Path(self.weights))
        if self.sha256 and found != self.sha256:
            raise ModelError(
                f"{self.weights} has sha256 {found}, not {self.sha256}: fetch the right file, or correct sha256"
            )
        return found


class Aesthetic:
    """score = weight @ embedding + bias, in float32."""

    def __init__(self, weight: npt.NDArray[np.float32], bias: np.float32) -> None:
        self._weight, self._bias = weight, bias

    def score(self, embeddings: npt.NDArray[np.float32]) -> Columns:
        """score. Raises ModelError for vectors of another width, ValueError for any that is not normalised."""
        if embeddings.shape[1] != len(self._weight):
            raise ModelError(
                f"these aesthetic weights take {len(self._weight)} numbers and an embedding has {embeddings.shape[1]}: "
                "use the weights for that model"
            )
        norms = np.linalg.norm(embeddings, axis=1)
        if (np.abs(norms - 1) > NORM).any():
            worst = norms[np.abs(norms - 1).argmax()]
            raise ValueError(f"an embedding has norm {worst:.3g}; only L2-normalised ones have an aesthetic score")
        return {"score": embeddings @ self._weight + self._bias}


def _read_tensors(path: Path) -> Mapping[str, npt.NDArray[np.float32]]:
    """The weights, read without unpickling objects. Raises ModelError."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            loaded: Mapping[str, npt.NDArray[np.float32]] = load_file(path)
            return loaded
        import torch

        return {
            name: tensor.numpy() for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()
        }
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read as weights: {reason}; use a .safetensors file") from error


def _fold(tensors: Mapping[str, npt.NDArray[np.float32]], name: str) -> tuple[npt.NDArray[np.float32], np.float32]:
    """The weight [dim] and bias of all linear layers together, multiplied in float64."""
    layers = [key.removesuffix("weight") for key in tensors if re.fullmatch(r"(layers\.\d+\.)?weight", key)]
    layers.sort(key=lambda layer: [int(number) for number in re.findall(r"\d+", layer)])
    if not layers or set(tensors) != {layer + part for layer in layers for part in ("weight", "bias")}:
        raise ModelError(f"{name} is no aesthetic head of v1 (weight, bias) or v2 (layers.N.weight, layers.N.bias)")
    width = tensors[layers[0] + "weight"].shape[1]
    weight, bias = np.eye(width), np.zeros(width)
    for layer in layers:
        step = tensors[layer + "weight"].astype(np.float64)
        if step.shape[1] != len(bias):
            raise ModelError(f"{name}: {layer}weight does not fit the layer before it")
        weight, bias = step @ weight, step @ bias + tensors[layer + "bias"]
    if len(bias) != 1:
        raise ModelError(f"{name} gives {len(bias)} numbers a picture instead of one score")
    return weight[0].astype(np.float32), np.float32(bias[0])
