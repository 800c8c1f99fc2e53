"""winnow in Python: what the commands do, for notebooks and training scripts. Nothing is printed.

>>> import winnow
>>> manifest = winnow.curate("demo")
>>> manifest.funnel("clip-top30")

`docs/python.md` walks through it. `winnow.torch` has datasets for training.
"""

import logging
import warnings

from filters.core import Distinct, Filter, Recipe
from filters.selections import SoftCap
from pipeline.errors import (
    BusyError,
    ClusterError,
    CompareError,
    ModelError,
    QueryError,
    RecipeError,
    SourceError,
    StorageError,
    TrainingError,
    WinnowError,
)
from pipeline.manifest.embeddings import Embeddings
from pipeline.pages.explore.recipe_text import toml
from winnow.curation import curate
from winnow.funnels import Funnel
from winnow.gains import Gain, train
from winnow.manifests import Manifest
from winnow.samples import Sample
from winnow.scoring import score
from winnow.sources import Source

logging.getLogger("winnow").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, whose bars nobody sees here

__all__ = [
    "BusyError",
    "ClusterError",
    "CompareError",
    "Distinct",
    "Embeddings",
    "Filter",
    "Funnel",
    "Gain",
    "Manifest",
    "ModelError",
    "QueryError",
    "Recipe",
    "RecipeError",
    "Sample",
    "SoftCap",
    "Source",
    "SourceError",
    "StorageError",
    "TrainingError",
    "WinnowError",
    "curate",
    "score",
    "toml",
    "train",
]
