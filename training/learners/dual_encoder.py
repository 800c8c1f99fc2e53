"""A learner that reads captions: a linear map of picture features into the space of a frozen text tower.

It is trained contrastively on pictures and their captions, and is never told a label; what it says of held-out pictures
comes of its cosines with texts: the name of the nearest class, or which captions it would find. So noise in captions is
noise, whatever classes they name, and a caption that is augmented is another sample. The budget's steps, batch and
learning rate are those of the other learners.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.models.clip_weights import find
from pipeline.settings.encoder import Network
from pipeline.settings.task import Budget
from training.data.labels import Classes
from training.data.versions import Versions
from training.learners import descent, probe
from training.measures.metrics import Units

VERSION = 3
"""Raised whenever the same pairs, budget and seed would give other predictions."""

PROMPT = "a photo of a {}"
"""A class lies where its words lie in it, in the middle."""

TEMPERATURE = 0.07
"""What cosines are divided by, as CLIP begins with (Radford et al. 2021)."""

Embeddings = npt.NDArray[np.float16]

Said = TypeVar("Said")

Embed = Callable[[npt.NDArray[np.float16]], Units]
"""Puts pictures into the space of captions, by their features [pictures, dim], as far as the learner is trained."""


@dataclass(frozen=True)
class Texts:
    """Captions and names of classes in a text tower's space, all L2-normalised.

    `plain` is of the rows of a pool, [rows, dim], `asked` of what held-out pictures are compared with, [texts, dim];
    `versions`, of "text" and of "both", [pairs, views, dim], are of augmented captions.
    """

    plain: Embeddings
    asked: Embeddings
    versions: Mapping[str, Embeddings]

    @classmethod
    def read(
        cls, encoder: Network, captions: Sequence[str], asked: Sequence[Sequence[str]], versions: Versions | None
    ) -> "Texts":
        """By the text tower of an open_clip encoder. What is `asked` lies in the middle of the ways to put it.

        Raises ModelError as the encoder does.
        """
        from pipeline.models.clip import Clip

        clip = Clip(find(encoder.model, encoder.weights, encoder.quick_gelu))
        starts = np.cumsum([0, *map(len, asked)])[:-1]
        middles = np.add.reduceat(clip.captions([each for ways in asked for each in ways]), starts)
        made = (
            {
                how: clip.captions(found).reshape(*versions.refused[how].shape, -1).astype(np.float16)
                for how, found in versions.captions.items()
            }
            if versions
            else {}
        )
        unit = middles / np.linalg.norm(middles, axis=1, keepdims=True)
        return cls(clip.captions(captions).astype(np.float16), unit.astype(np.float16), made)

    def seen(self, how: bool | str, rows: npt.NDArray[np.int64], versions: Versions | None) -> Embeddings:
        """The captions of rows of the pool, the plain one first: [rows, 1, dim], or [rows, 1 + views, dim]."""
        plain = self.plain[rows][:, None]
        if not isinstance(how, str) or versions is None:
            return plain
        return versions.chosen(how, rows, plain, self.versions["text" if how == "text" else "both"])


def prompts(classes: Classes) -> list[list[str]]:
    """What is asked where pictures are given classes: the ways to name each."""
    return [[PROMPT.format(word) for word in words] for words in classes.values()]


def predictions(
    views: probe.Views, texts: Embeddings, answer: Callable[[Embed], Said], budget: Budget, seed: int
) -> dict[int, Said]:
    """Train on `views` [pairs, versions, dim] and the captions of each, `texts` [pairs, versions, text dim].

    What `answer` makes of the learner, by the number of steps at each of probe.LOOKS. Where one of views and texts has
    one version only, it goes with all of the other's. Pairs of one step that have the same caption, by its features,
    count as matches of each other.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    pairs, dim = len(views), views.shape[2]
    versions = max(views.shape[1], texts.shape[1])
    mean, deviation = (torch.from_numpy(each) for each in probe.statistics(views))
    generator = np.random.default_rng([seed, VERSION])
    seen, read = (
        torch.from_numpy(np.repeat(each, versions // each.shape[1], axis=1).reshape(pairs * versions, -1))
        for each in (views, texts)
    )
    same = torch.from_numpy(np.unique(read.numpy(), axis=0, return_inverse=True)[1].reshape(-1))
    looks, found = probe.steps(budget), {}

    def embed(pictures: npt.NDArray[np.float16]) -> Units:
        with torch.inference_mode():
            standard = torch.from_numpy(pictures).float().sub_(mean).div_(deviation)
            made: Units = normalize(model(standard), dim=-1).numpy()
        return made

    with descent.one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Linear(dim, texts.shape[2])
        optimizer = descent.descent(model, budget)
        for step in range(budget.steps):
            rows = generator.integers(pairs, size=budget.batch) * versions
            chosen = torch.from_numpy(rows + generator.integers(versions, size=budget.batch))
            captions = read[chosen].float()
            pictures = normalize(model(seen[chosen].float().sub_(mean).div_(deviation)), dim=-1)
            scores = pictures @ captions.T / TEMPERATURE
            matches = (same[chosen, None] == same[chosen]).float()
            wanted = matches / matches.sum(dim=1, keepdim=True)
            loss = (cross_entropy(scores, wanted) + cross_entropy(scores.T, wanted)) / 2
            descent.descend(optimizer, loss, budget, step)
            if step + 1 in looks:
                found[step + 1] = answer(embed)
    return found
