"""The models of the study of DINOv2 and RoBERTa on VQAv2, in their real shapes with random weights, and its counts."""

import torch

from pipeline.settings.vqa import Lora
from training.vqa import heads, lora
from training.vqa.towers import ImageTokens, TextTokens

ANSWERS = 9214
STUDY = Lora(rank=16, alpha=16, targets="study", head=False)
KEY_VALUE = Lora(rank=16, alpha=16, targets="key-value", head=True)


class Shaped(torch.nn.Module):
    """Towers and a head, without pictures to prepare and questions to cut."""

    def __init__(self, image, text, head):
        super().__init__()
        self.image, self.text, self.head = image, text, head

    def forward(self, pixels, ids):
        return self.head(self.image(pixels), self.text(ids), self.text.mask(ids))


def towers(size):
    """DINOv2 and RoBERTa, both "base" or both "small", with RoBERTa's pooler, which the study keeps and never reads."""
    from transformers import Dinov2Config, Dinov2Model, RobertaConfig, RobertaModel

    small = size == "small"
    image = Dinov2Config(
        hidden_size=384 if small else 768, num_attention_heads=6 if small else 12, image_size=518, patch_size=14
    )
    # The small RoBERTa's depth is not in the study; with 12 layers all parameters are the 135 million that it names.
    shape = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_hidden_layers": 12}
    text = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, **(shape if small else {})
    )
    return ImageTokens(Dinov2Model(image), 224), TextTokens(RobertaModel(text), text.hidden_size, 1, "first")


def model(size, kind, hidden):
    image, text = towers(size)
    head = heads.head(kind, (image.width, text.width), text.width, hidden, ANSWERS, 0.1)
    return Shaped(image, text, head)


def loss(made):
    ids = torch.tensor([[0, 99, 7, 2, 1, 1], [0, 5, 8, 21, 4, 2]])
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.cross_entropy(made(pixels, ids), torch.tensor([3, 9000]))


def adapted(size, kind, hidden, settings):
    """Counts, the adapted modules, those of them without a gradient, and the loss before and after one step of Adam."""
    made = model(size, kind, hidden)
    chosen = lora.add(made, settings, 0)
    dead = lora.without_gradient(made, lambda: loss(made))
    optimizer = torch.optim.Adam([each for each in made.parameters() if each.requires_grad], lr=1e-3)
    made.eval()
    before = loss(made)
    before.backward()
    optimizer.step()
    with torch.no_grad():
        return lora.counts(made), chosen, dead, (before.item(), loss(made).item())
