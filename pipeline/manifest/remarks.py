"""What a manifest's card says in words, for the terminal and the report."""

from pipeline.filtering import distinct
from pipeline.manifest import chain, copies, placeholders, unanswered, unmatched
from pipeline.manifest.manifest import Manifest
from pipeline.scorers import mixture_file


def of(manifest: Manifest) -> list[str]:
    """A line for each remark: on copies, duplicates, placeholders, embeddings, judges, mixes, trained models."""
    card = manifest.card
    return [
        *copies.remarks(manifest),
        *distinct.remarks(card.get("neighbours", {})),
        *placeholders.remarks(card),
        *unmatched.remarks(card),
        *unanswered.remarks(card),
        *mixture_file.remarks(card.get("mixtures", {})),
        *chain.remarks(card.get("trainings", {}), manifest.source),
    ]
