"""The kinds of scorer. Each file has a light spec and the heavy thing that it loads; a new kind is one file and a word here."""

from typing import Annotated

from pydantic import Field

from pipeline.scorers.aesthetic import AestheticSpec
from pipeline.scorers.captions import CaptionsSpec
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.pixels import PixelsSpec
from pipeline.scorers.recorded import RecordedSpec

AnySpec = Annotated[
    ClipSpec | AestheticSpec | PixelsSpec | CaptionsSpec | RecordedSpec,
    Field(discriminator="kind"),
]
