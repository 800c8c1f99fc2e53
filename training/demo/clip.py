"""Trains the demo CLIP: `python -m training.demo.clip`. It sees nothing but clean scenes of a stream that is neither in
the demo's pool nor in its test set, so it knows the demo's toys and nothing of the world.

The scenes take as long as the training: together 5 to 10 minutes on 2 idle cores.
"""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, normalize

from pipeline.demo import pool
from pipeline.demo.captions import SHAPE_WORDS
from pipeline.process import spawning
from training.demo.vocabulary import write_vocabulary

FOLDER = Path(__file__).parents[2] / "pipeline" / "demo" / "clip"
SEED = 1
SCENES, WORDINGS = 22_000, 4
SIDE, MARGIN = 64, 8  # pixels the model sees, and more of them to crop from
BATCH, STEPS, WARM_UP, RATE, DECAY = 256, 800, 60, 2e-3, 0.1
TOKENS = 24

Pictures = npt.NDArray[np.uint8]


def photographs(stream: int, seed: int, count: int) -> Pictures:
    """Clean scenes as the pipeline would see them, uint8 [count, 72, 72, 3]; drawn by all cores."""
    starts = range(0, count, 200)
    with spawning.pool() as drawers:
        parts = drawers.map(
            _photographs, *zip(*((stream, seed, at, min(at + 200, count)) for at in starts), strict=True)
        )
        return np.concatenate(list(track(parts, "drawing scenes", total=len(starts))))


def _photographs(stream: int, seed: int, start: int, stop: int) -> Pictures:
    shots = pool.clean(stream, range(start, stop))
    return np.stack([shrunk(content, SIDE + MARGIN) for _, content in pool.files(seed, shots)])


def shrunk(content: bytes, side: int) -> Pictures:
    """A JPEG's pixels, resized as the model's preprocessing does, uint8 [side, side, 3]."""
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def write_config(vocabulary: int, pictures: Pictures, folder: Path) -> None:
    """open_clip's description of the model, with the scenes' own mean and standard deviation."""
    pixels = pictures[:2000].reshape(-1, 3) / 255
    config = {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
            "text_cfg": {
                "context_length": TOKENS,
                "vocab_size": vocabulary,
                "tokenizer_kwargs": {"bpe_path": "vocabulary.txt.gz"},
                "width": 128,
                "heads": 4,
                "layers": 2,
            },
        },
        "preprocess_cfg": {
            "mean": [round(float(value), 4) for value in pixels.mean(0)],
            "std": [round(float(value), 4) for value in pixels.std(0)],
            "interpolation": "bicubic",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, from any working directory."""
    import open_clip

    return open_clip.get_tokenizer(f"local-dir:{folder}", bpe_path=str(folder / "vocabulary.txt.gz"))


def train(pictures: Pictures, tokens: Tensor, folder: Path) -> Any:
    """A CLIP taught by contrast. Tokens: [scenes, wordings, TOKENS]."""
    import open_clip

    torch.manual_seed(SEED)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False).to(memory_format=torch.channels_last)
    plain = [value for value in model.parameters() if value.ndim < 2]
    heavy = [value for value in model.parameters() if value.ndim >= 2]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": heavy, "weight_decay": DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate)
    standard = _Standard(folder)
    all_pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    model.train()
    order = torch.empty(0, dtype=torch.long)
    for _ in track(range(STEPS), "training"):
        if len(order) < BATCH:
            order = torch.randperm(len(pictures))
        chosen, order = order[:BATCH], order[BATCH:]
        said = tokens[chosen, torch.randint(tokens.shape[1], (BATCH,))]
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.encode_image(standard(_augmented(all_pictures[chosen])), normalize=True)
            read = model.encode_text(said, normalize=True)
        logits = model.logit_scale.exp() * seen.float() @ read.float().T
        target = torch.arange(BATCH)
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
    return model.eval()


def _rate(step: int) -> float:
    warm = (step + 1) / WARM_UP
    done = min(1.0, (step - WARM_UP) / (STEPS - WARM_UP))
    return warm if warm < 1 else 0.5 * (1 + float(np.cos(np.pi * done)))


def _augmented(pictures: Tensor) -> Tensor:
    """Another crop, and every other picture mirrored: no caption tells left from right. Values 0 to 1."""
    side = int(torch.randint(SIDE - 4, SIDE + MARGIN + 1, ()))
    top, left = (int(torch.randint(SIDE + MARGIN - side + 1, ())) for _ in range(2))
    part = pictures[:, :, top : top + side, left : left + side].float() / 255
    mirrored = torch.rand(len(part)) < 0.5
    part = torch.where(mirrored[:, None, None, None], part.flip(3), part)
    return interpolate(part, SIDE, mode="bilinear", antialias=True).to(memory_format=torch.channels_last)


class _Standard:
    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["preprocess_cfg"]
        self._mean, self._std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))

    def __call__(self, pictures: Tensor) -> Tensor:
        return (pictures - self._mean) / self._std


def save(model: Any, folder: Path) -> None:
    """Weights as float16 safetensors."""
    from safetensors.torch import save_file

    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / "open_clip_model.safetensors")


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """How often a value of the first list is above one of the second, 0 to 1."""
    from scipy.stats import mannwhitneyu

    statistic = mannwhitneyu(higher, lower).statistic
    return float(statistic) / (len(higher) * len(lower))


def similarities(folder: Path, count: int) -> tuple[list[float], list[float]]:
    """Cosines of `count` unseen clean pairs, and of the same pictures with each other's captions."""
    said = [pool.captions(SEED, pool.CALIBRATION, number, 1)[0] for number in range(count)]
    pictures, texts = embeddings(folder, _unseen(count), said)
    return (pictures * texts).sum(1).tolist(), (pictures * texts.roll(1, 0)).sum(1).tolist()


def shapes_named(folder: Path, count: int) -> float:
    """The share of `count` unseen clean pictures whose main shape the model names, asked for nothing else."""
    words = [word for each in SHAPE_WORDS.values() for word in sorted(set(each))]
    of = [name for name, each in SHAPE_WORDS.items() for _ in set(each)]
    pictures, texts = embeddings(folder, _unseen(count), [f"a photo of a {word}" for word in words])
    said = [of[int(nearest)] for nearest in (pictures @ texts.T).argmax(1)]
    shown = [pool.scene(SEED, pool.CALIBRATION, number).things[0].shape for number in range(count)]
    return float(np.mean([one == other for one, other in zip(said, shown, strict=True)]))


def _unseen(count: int) -> list[bytes]:
    return [content for _, content in pool.files(SEED, pool.clean(pool.CALIBRATION, range(count)))]


def embeddings(folder: Path, contents: Sequence[bytes], captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Of pictures and of captions, float32 [n, 128], of length 1."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.inference_mode():
        seen = torch.stack([preprocess(Image.open(BytesIO(content))) for content in contents])
        pictures = normalize(model.eval().encode_image(seen), dim=-1)
        return pictures, normalize(model.encode_text(tokenizer(folder)(list(captions))), dim=-1)


def main() -> None:
    """Draw, train, save, and say how well it tells matched from swapped."""
    torch.use_deterministic_algorithms(True)
    captions = [pool.captions(SEED, pool.TRAINING, number, WORDINGS) for number in range(SCENES)]
    pictures = photographs(pool.TRAINING, SEED, SCENES)
    FOLDER.mkdir(exist_ok=True)
    size = write_vocabulary((caption for each in captions for caption in each), FOLDER / "vocabulary.txt.gz")
    write_config(size, pictures, FOLDER)
    words = tokenizer(FOLDER)
    tokens = torch.stack([words(each) for each in captions])
    save(train(pictures, tokens, FOLDER), FOLDER)
    matched, swapped = similarities(FOLDER, 1000)
    print(f"matched {np.mean(matched):.3f}, swapped {np.mean(swapped):.3f}, AUC {auc(matched, swapped):.4f}")
    print(f"shapes named {shapes_named(FOLDER, 1000):.3f}")


if __name__ == "__main__":
    main()
