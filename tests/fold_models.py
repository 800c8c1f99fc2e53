"""Small models of folds, as `winnow fit --folds` writes them: random weights, and records of a training."""

import json

import random_clip
import torch

from pipeline.models.training_record import RECORD, Learned

TRAINED = {"source": "tiny", "manifest": "ab" * 16, "recipe": "everything", "seed": 0, "test": None}


def save(folder, shards, learned, **changed):
    """A model for each item of `learned`, the (uids, sha256) that it was trained on. `shards` are those of the ledger.

    The models have different weights.
    """
    folder.mkdir(exist_ok=True)
    keys = {str(shard.number): shard.key for shard in shards}
    for number, (uids, pictures) in enumerate(learned):
        model = random_clip.reference("gelu")
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "projection" in name:
                    weight.add_(number * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
        fold = random_clip.save(model, folder / f"fold-{number}", False)
        record = {**TRAINED, "fold": {"number": number, "of": len(learned), "shards": keys}, **changed}
        (fold / RECORD).write_text(json.dumps(record))
        Learned.of(uids, pictures).write(fold)
    return folder
