"""What a manifest's card says in words, for the terminal and the report."""

from pipeline.filtering import distinct
from pipeline.manifest import chain, placeholders
from pipeline.manifest.manifest import Manifest


def of(manifest: Manifest) -> list[str]:
    """A line for each remark: on near-duplicates, placeholders, and models that winnow trained."""
    card = manifest.card
    return [
        *distinct.remarks(card.get("neighbours", {})),
        *placeholders.remarks(card),
        *chain.remarks(card.get("trainings", {}), manifest.source),
    ]
