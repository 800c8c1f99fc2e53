"""Heads that choose an answer, against float64 references that are written down formula by formula."""

import math

import pytest
import torch

from pipeline.errors import ModelError
from training.vqa.heads import head

WIDTHS, ANSWERS = (24, 16), 5


def sides(batch=3, positions=7, tokens=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, positions, WIDTHS[0], generator=generator)
    text = torch.randn(batch, tokens, WIDTHS[1], generator=generator)
    mask = torch.arange(tokens) < torch.tensor([6, 2, 4])[:, None]
    return image, text, mask


def attended(weights, prefix, query, values, heads, mask=None):
    """Softmax attention of one query to values, as Vaswani et al. (2017) write it."""
    width = query.shape[-1]
    ways, bias = weights[f"{prefix}.in_proj_weight"].split(width), weights[f"{prefix}.in_proj_bias"].split(width)
    q, k, v = (x @ way.T + b for x, way, b in zip((query, values, values), ways, bias, strict=True))
    found = []
    for part in torch.arange(width).split(width // heads):
        scores = torch.einsum("bd,bnd->bn", q[:, part], k[..., part]) / math.sqrt(width // heads)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        share = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        found.append((share[..., None] * v[..., part]).sum(dim=1))
    return torch.cat(found, dim=1) @ weights[f"{prefix}.out_proj.weight"].T + weights[f"{prefix}.out_proj.bias"]


def classified(weights, summed, prefix="classifier"):
    if f"{prefix}.weight" in weights:
        return summed @ weights[f"{prefix}.weight"].T + weights[f"{prefix}.bias"]
    hidden = summed @ weights[f"{prefix}.0.weight"].T + weights[f"{prefix}.0.bias"]
    hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
    return hidden @ weights[f"{prefix}.3.weight"].T + weights[f"{prefix}.3.bias"]


def projected(weights, side, place):
    name = f"attention.projections.{place}"
    return side @ weights[f"{name}.weight"].T + weights[f"{name}.bias"] if f"{name}.weight" in weights else side


def reference(kind, weights, image, text, mask):
    if kind == "concatenation":
        return classified(weights, torch.cat([image[:, 0], text[:, 0]], dim=1))
    image, text = projected(weights, image, 0), projected(weights, text, 1)
    heads = {"co-attention": 1, "advanced": 8}[kind]
    told = attended(weights, "attention.from_text", image[:, 0], text, heads, mask)
    seen = attended(weights, "attention.from_image", text[:, 0], image, heads)
    if kind == "co-attention":
        return classified(weights, told + seen)
    return classified(weights, torch.cat([told + image[:, 0], seen + text[:, 0]], dim=1))


@pytest.mark.parametrize("hidden", [0, 12])
@pytest.mark.parametrize("kind", ["co-attention", "concatenation", "advanced"])
def test_values_and_gradients_are_those_of_the_formulas(kind, hidden):
    torch.manual_seed(1)
    made = head(kind, WIDTHS, 16, hidden, ANSWERS, 0.5).eval()
    image, text, mask = sides()
    targets = torch.tensor([0, 4, 2])
    weights = {name: each.detach().double().requires_grad_() for name, each in made.named_parameters()}
    logits, exact = made(image, text, mask), reference(kind, weights, image.double(), text.double(), mask)
    torch.testing.assert_close(logits.double(), exact, atol=1e-6, rtol=1e-5)
    torch.nn.functional.cross_entropy(logits, targets).backward()
    (exact.logsumexp(dim=1) - exact[torch.arange(3), targets]).mean().backward()
    for name, each in made.named_parameters():
        torch.testing.assert_close(each.grad.double(), weights[name].grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["co-attention", "advanced"])
def test_the_attended_first_tokens_are_those_of_a_whole_attention(kind):
    made = head(kind, (16, 16), 16, 0, ANSWERS, 0.0).eval()
    image, text, mask = sides()
    image = image[..., :16]
    told, seen = made.attention(image, text, mask)
    whole, _ = made.attention.from_text(image, text, text, key_padding_mask=~mask)
    torch.testing.assert_close(told, whole[:, 0])
    whole, _ = made.attention.from_image(text, image, image)
    torch.testing.assert_close(seen, whole[:, 0])


@pytest.mark.parametrize("kind", ["co-attention", "concatenation", "advanced"])
def test_padding_changes_no_answer(kind):
    made = head(kind, WIDTHS, 16, 4, ANSWERS, 0.5).eval()
    image, text, mask = sides()
    other = torch.where(mask[..., None], text, 1e3)
    assert torch.equal(made(image, text, mask), made(image, other, mask))


def test_equal_widths_have_no_projection():
    def parameters(widths):
        return sum(each.numel() for each in head("co-attention", widths, 16, 0, ANSWERS, 0.0).parameters())

    attention = 2 * (4 * 16 * 16 + 4 * 16)
    assert parameters((16, 16)) == attention + 16 * ANSWERS + ANSWERS
    assert parameters((24, 16)) - parameters((16, 16)) == 24 * 16 + 16


def test_a_width_that_eight_heads_do_not_divide_is_one_line():
    with pytest.raises(ModelError, match="width = 20 cannot be divided among 8 attention heads"):
        head("advanced", (20, 20), 20, 0, ANSWERS, 0.0)
