"""The kinds of scorer, a file each: a light spec, and the scorer that it loads. Add a new kind to `AnySpec`."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from pipeline.scorers.aesthetic import AestheticSpec
from pipeline.scorers.aligned import ClipRetrievalSpec, DataCompSpec
from pipeline.scorers.caption_counts import CaptionCountsSpec
from pipeline.scorers.captions import CaptionsSpec
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.clusters import ClustersSpec
from pipeline.scorers.cross_fitted import CrossFittedSpec
from pipeline.scorers.duplicates import DuplicatesSpec
from pipeline.scorers.entries import EntriesSpec
from pipeline.scorers.faces import FacesSpec
from pipeline.scorers.judge import JudgeSpec
from pipeline.scorers.label_errors import LabelErrorsSpec
from pipeline.scorers.leaks import LeaksSpec
from pipeline.scorers.mixed import MixedSpec
from pipeline.scorers.neg_clip_loss import NegClipLossSpec
from pipeline.scorers.norm_sim import NormSimSpec
from pipeline.scorers.picture_counts import PictureCountsSpec
from pipeline.scorers.pixels import PixelsSpec
from pipeline.scorers.prompts import PromptsSpec
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scorers.semantic import SemanticSpec
from pipeline.scorers.target_features import TargetFeaturesSpec
from pipeline.scorers.text import TextSpec
from pipeline.scorers.unsafe import UnsafeSpec
from pipeline.scorers.user_scorer import UserScorerSpec, from_file
from pipeline.scorers.words import WordsSpec

AnySpec = Annotated[
    ClipSpec
    | CrossFittedSpec
    | AestheticSpec
    | PromptsSpec
    | PixelsSpec
    | FacesSpec
    | UnsafeSpec
    | CaptionsSpec
    | WordsSpec
    | RecordedSpec
    | DataCompSpec
    | ClipRetrievalSpec
    | DuplicatesSpec
    | SemanticSpec
    | JudgeSpec
    | LabelErrorsSpec
    | LeaksSpec
    | NegClipLossSpec
    | NormSimSpec
    | CaptionCountsSpec
    | ClustersSpec
    | MixedSpec
    | EntriesSpec
    | PictureCountsSpec
    | TargetFeaturesSpec
    | TextSpec
    | UserScorerSpec,
    Field(discriminator="kind"),
    BeforeValidator(from_file),
]
