"""Questions about pictures of one colour, and models that answer them, all built in a moment."""

import numpy as np
import tiny_towers

from pipeline.settings.vqa import VqaModel
from training.data.order import Drawn, Order
from training.learners.vqa import Data, Texts
from training.vqa import build

QUESTIONS = ("two red dog", "the man sits on the beach", "a", "it rides with the horse and the cat in sand")
ANSWERS = ("red", "blue", "two", "dog")


def settings(folder, **keys):
    table = {
        "image": "timm:test_resnet@random",
        "image_size": 32,
        "text": f"transformers:{folder}",
        "context": 16,
        "batch": 8,
        "steps": 12,
    }
    return VqaModel.model_validate(table | keys)


def write_text(folder):
    return tiny_towers.write_text(folder)


class Squares:
    """A stream of pictures of one colour, or of the stored features of them."""

    def __init__(self, model, rows, stored):
        levels = np.linspace(0, 255, 7).astype(np.uint8)
        self.pixels = np.stack([np.full((32, 32, 3), level) for level in levels])
        self.pixels[..., 1:] //= 2
        self.values, self.rows = self.pixels, rows
        if stored:
            import torch

            with torch.inference_mode():
                self.values = model.see(model.pictures.stack(list(self.pixels))).flatten(1).numpy()

    def read(self, drawn: "list[Drawn]"):
        import torch

        for each in drawn:
            yield torch.from_numpy(self.values[self.rows[each.rows]])

    def chunks(self):
        import torch

        yield torch.from_numpy(self.values[:4])
        yield torch.from_numpy(self.values[4:])


def data(model, rows=40, batch=8, seed=0, stored=True):
    """Rows whose answer depends on the picture and the question."""
    generator = np.random.default_rng(3)
    picture, question = generator.integers(7, size=rows), generator.integers(len(QUESTIONS), size=rows)
    ids = model.tokenizer(QUESTIONS).ids
    images = Squares(model, picture, stored and model.image_frozen) if model.image is not None else None
    features = None
    if stored and model.text_frozen:
        import torch

        with torch.inference_mode():
            features = model.text(ids).numpy().astype(np.float16)
    texts = Texts(ids.int().numpy(), features, 0)
    targets = ((picture > 3) * 2 + question % 2).astype(np.int64)
    plain = np.zeros((rows, 1), np.int64)
    order = Order(np.arange(rows), batch, seed)
    return Data(images, texts, plain, question[:, None], targets[:, None], lambda row: f"uid{row}", order)


def model(folder, seed=0, **keys):
    return build.build(settings(folder, **keys), len(ANSWERS), seed)
