"""The kinds of scorer: a file each, with a light spec and the heavy thing that it loads. A new one gets a word here."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from pipeline.scorers.aesthetic import AestheticSpec
from pipeline.scorers.caption_counts import CaptionCountsSpec
from pipeline.scorers.captions import CaptionsSpec
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.clusters import ClustersSpec
from pipeline.scorers.duplicates import DuplicatesSpec
from pipeline.scorers.entries import EntriesSpec
from pipeline.scorers.leaks import LeaksSpec
from pipeline.scorers.neg_clip_loss import NegClipLossSpec
from pipeline.scorers.norm_sim import NormSimSpec
from pipeline.scorers.picture_counts import PictureCountsSpec
from pipeline.scorers.pixels import PixelsSpec
from pipeline.scorers.prompts import PromptsSpec
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scorers.semantic import SemanticSpec
from pipeline.scorers.words import WordsSpec
from pipeline.scorers.written import WrittenSpec, by_file

AnySpec = Annotated[
    ClipSpec
    | AestheticSpec
    | PromptsSpec
    | PixelsSpec
    | CaptionsSpec
    | WordsSpec
    | RecordedSpec
    | DuplicatesSpec
    | SemanticSpec
    | LeaksSpec
    | NegClipLossSpec
    | NormSimSpec
    | CaptionCountsSpec
    | ClustersSpec
    | EntriesSpec
    | PictureCountsSpec
    | WrittenSpec,
    Field(discriminator="kind"),
    BeforeValidator(by_file),
]
