"""Questions to train on, batch by batch, the loss of answers to them, and the answers of a model.

A tower that is frozen reads stored features, and one that trains reads pixels or token ids. The loop does not know
which.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from training.data.order import Drawn, Order
from training.data.streams import Stream
from training.learners.divergence import check_scores

if TYPE_CHECKING:
    import torch

    from training.vqa.model import Answerer

VERSION = 1

_CHUNK = 256


class Asked(NamedTuple):
    """Questions about pictures as a model reads them, [batch, ...] each.

    `images` are pixels, uint8 [batch, height, width, 3], or features of a frozen tower, float32; None for a model
    without pictures. `ids` are token ids, and `texts` their features if the text tower is frozen.
    """

    images: "torch.Tensor | None"
    ids: "torch.Tensor"
    texts: "torch.Tensor | None"


class Batch(NamedTuple):
    """What is asked, the numbers of the right answers, int64 [batch], and the rows that both come from."""

    drawn: Drawn
    asked: Asked
    targets: "torch.Tensor"


@dataclass(frozen=True)
class Texts:
    """Distinct questions: token ids, int32 [questions, length], and features of a frozen tower, float16, or None.

    `cut` of them are longer than the text tower reads.
    """

    ids: npt.NDArray[np.int32]
    features: npt.NDArray[np.float16] | None
    cut: int

    def read(self, rows: npt.NDArray[np.int64]) -> "tuple[torch.Tensor, torch.Tensor | None]":
        """Token ids and features of these questions."""
        import torch

        ids = torch.from_numpy(self.ids[rows]).long()
        return ids, None if self.features is None else torch.from_numpy(self.features[rows]).float()


@dataclass(frozen=True)
class Data:
    """Questions to train on, by rows, each in some versions: a version has its own picture, wording and answer.

    `seen`, [rows, versions], is the number of the version of the picture, 0 for the plain one; `place`, of the question
    among the distinct `texts`; `targets`, of the answer. `order` leaves out rows whose answer has no number.
    """

    images: Stream | None
    texts: Texts
    seen: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    uid: Callable[[int], str]
    order: Order

    def batches(self, steps: range) -> Iterator[Batch]:
        """The batches of these steps."""
        import torch

        drawn = [self.order.steps(steps) for _ in range(2)]
        images = self.images.read(map(self._pictures, drawn[0])) if self.images else None
        for each in drawn[1]:
            at = each.rows, each.versions if self.place.shape[1] > 1 else np.zeros_like(each.rows)
            asked = Asked(next(images) if images else None, *self.texts.read(self.place[at]))
            yield Batch(each, asked, torch.from_numpy(self.targets[at]))

    def _pictures(self, drawn: Drawn) -> Drawn:
        versions = drawn.versions if self.seen.shape[1] > 1 else np.zeros_like(drawn.rows)
        return Drawn(drawn.step, drawn.rows, self.seen[drawn.rows, versions])


@dataclass(frozen=True)
class AnswerLoss:
    """Cross-entropy of the right answers. `weights`, float32 [answers], weigh them; the mean is over the weights."""

    model: "Answerer"
    weights: "torch.Tensor | None" = None

    def backward(self, batch: Batch) -> float:
        """As of `Loss`."""
        self.model.train()
        loss = self._of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def value(self, batch: Batch) -> float:
        """As of `Loss`."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            return self._of(batch).item()

    def clamp(self) -> None:
        """Nothing has a limit."""

    def broken(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """As of `Loss`."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            found: npt.NDArray[np.bool_] = ~answer(self.model, batch.asked).isfinite().all(dim=1).cpu().numpy()
        return found

    def _of(self, batch: Batch) -> "torch.Tensor":
        """A batch whose answers all have the weight 0 has the loss 0."""
        from torch.nn.functional import cross_entropy

        logits = answer(self.model, batch.asked)
        targets = batch.targets.to(logits.device)
        if self.weights is None:
            return cross_entropy(logits, targets)
        weights = self.weights.to(logits.device)
        return cross_entropy(logits, targets, weights, reduction="sum") / weights[targets].sum().clamp_min(1e-12)


def answer(model: "Answerer", asked: Asked) -> "torch.Tensor":
    """Logits, float32 [batch, answers]."""
    return _about(model, _image(model, asked.images, len(asked.ids)), asked.ids, asked.texts)


def _about(
    model: "Answerer", tokens: "torch.Tensor", ids: "torch.Tensor", texts: "torch.Tensor | None"
) -> "torch.Tensor":
    """Logits of questions about pictures whose tokens are known."""
    ids = ids.to(model.device)
    mask = model.text.mask(ids)
    text = model.text(ids) if texts is None else texts[:, : mask.shape[1]].to(model.device)
    logits: torch.Tensor = model.head(tokens, text, mask)
    return logits.float()


def predict(
    model: "Answerer",
    pictures: "Callable[[], Iterable[torch.Tensor]]",
    picture: npt.NDArray[np.int64],
    texts: Texts,
    place: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The number of the most probable answer to each question, int64 [questions].

    `pictures` gives pixels or features in chunks, in the order that `picture` numbers them in; `place` numbers the
    distinct `texts`. A picture goes through its tower once. Raises TrainingError for logits that are not finite.
    """
    import torch

    found, start = np.full(len(picture), -1, np.int64), 0
    model.eval()
    with torch.inference_mode():
        if model.image is None:
            rows = np.arange(len(picture))
            for part in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
                found[part] = _best(answer(model, Asked(None, *texts.read(place[part]))))
            return found
        for chunk in pictures():
            tokens = _image(model, chunk, len(chunk))
            rows = np.flatnonzero((picture >= start) & (picture < start + len(chunk)))
            for part in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
                if len(part):
                    ids, features = texts.read(place[part])
                    own = tokens[torch.from_numpy(picture[part] - start).to(tokens.device)]
                    found[part] = _best(_about(model, own, ids, features))
            start += len(chunk)
    return found


def _best(logits: "torch.Tensor") -> npt.NDArray[np.int64]:
    best: npt.NDArray[np.int64] = check_scores(logits).argmax(dim=1).cpu().numpy()
    return best


def _image(model: "Answerer", images: "torch.Tensor | None", count: int) -> "torch.Tensor":
    """Picture tokens of pixels, or of stored features, [batch, positions, width]."""
    import torch

    if images is None or model.image is None:
        return torch.zeros(count, 1, model.image_shape[1], device=model.device)
    if images.dtype == torch.uint8:
        return model.see(model.pictures.stack(list(images.numpy())).to(model.device))
    return images.reshape(count, *model.image_shape).to(model.device)
