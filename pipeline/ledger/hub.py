"""A dataset of a hub: fetched by the library `datasets` into its cache, whose Arrow files are the tables."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import SourceError, did_you_mean
from pipeline.settings.pictures import HUB, hub_cache


def choose_split(splits: Mapping[str, object], split: str | None, where: object) -> str:
    """The split of this name, or the only one. Raises SourceError."""
    if split is None and len(splits) == 1:
        return next(iter(splits))
    if split is None:
        raise SourceError(f'{where} has the splits {", ".join(splits)}: set split = "NAME" in [pairs]')
    if split not in splits:
        raise SourceError(f"{where} has no split {split!r}{did_you_mean(split, splits)}")
    return split


def hub_tables(dataset: str, split: str | None) -> list[Path]:
    """The tables of hf://ORGANISATION/NAME, with /CONFIGURATION and @REVISION where they are named.

    What is in the cache is not fetched again. No host is asked but the hub's. Raises SourceError if the library is
    missing, if the hub cannot be reached, and for a dataset with several configurations or splits and no name of one.
    """
    try:
        import datasets
    except ImportError:
        raise SourceError(f'{dataset} needs the package datasets: pip install "datasets>=4"') from None
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would tell another host

    name, _, revision = dataset.removeprefix(HUB).partition("@")
    organisation, _, rest = name.partition("/")
    repository, _, config = rest.partition("/")
    try:
        loaded = datasets.load_dataset(
            f"{organisation}/{repository}" if repository else organisation, config or None, revision=revision or None
        )
    except Exception as error:  # the library, its client and its readers raise errors of many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise SourceError(
            f"{dataset} cannot be fetched from the hub: {reason}; check the name and the network, or name a local copy"
        ) from error
    splits = dict(loaded)
    files = [Path(each["filename"]) for each in splits[choose_split(splits, split, dataset)].cache_files]
    outside = [file for file in files if not file.is_relative_to(hub_cache())]
    if outside:
        raise SourceError(f"{outside[0]} is not below {hub_cache()}: set HF_HOME alone, not HF_DATASETS_CACHE")
    return files
