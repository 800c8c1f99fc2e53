"""The rates that an estimate reckons with: defaults of `rates.toml`, and what `winnow bench` measured."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from pipeline.errors import SourceError
from pipeline.settings.fields import Table
from pipeline.text_files import read_text


class PoolRates(Table):
    """Shares of the list and of the downloaded pairs, and the mean bytes of a picture: stored, and as it is fetched."""

    success: float = Field(gt=0, le=1)
    kept: float = Field(ge=0, le=1)
    picture_bytes: float = Field(gt=0)
    fetched_bytes: float = Field(gt=0)


class DownloadRates(Table):
    """Seconds of one core for a picture and for a URL that fails, seconds until a URL ends, requests for each core."""

    core_seconds: float = Field(ge=0)
    failed_core_seconds: float = Field(ge=0)
    wait_seconds: float = Field(ge=0)
    requests: float = Field(gt=0)


class RowBytes(Table):
    """Bytes of a row: in the ledger, the results of its download, and published; and in a tar beside the picture."""

    ledger: float
    download: float
    published: float
    tar: float


class WholePool(Table):
    """Seconds for a million rows on one machine."""

    list: float
    publish: float


class ScorerRates(Table):
    """Bytes of a row, and seconds: of one core for a downloaded pair, or for a million of them on one machine.

    `seconds` come on top of those for a million, whatever the number of pairs. `model` is the one that the figures are
    of; None if they do not depend on one.
    """

    bytes: float = 0
    core_seconds: float | None = None
    seconds_per_million: float | None = None
    seconds: float = 0
    gpu_pairs_per_second: float | None = None
    model: str | None = None


class Rates(Table):
    """All rates. `scorers` are by kind, and so are `selections`: seconds for a million downloaded pairs."""

    pool: PoolRates
    download: DownloadRates
    rows: RowBytes
    seconds_per_million: WholePool
    selections: dict[str, float]
    scorers: dict[str, ScorerRates]

    @classmethod
    def default(cls) -> Self:
        """Those of `rates.toml`."""
        path = Path(__file__).with_name("rates.toml")
        return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))

    def with_pool(self, **known: float | None) -> Self:
        """With what is known of the pool; None is not known."""
        better = {name: value for name, value in known.items() if value is not None}
        return self.model_copy(update={"pool": self.pool.model_copy(update=better)})

    def with_download(self, core_seconds: float) -> Self:
        """With another time of one core for a picture."""
        return self.model_copy(update={"download": self.download.model_copy(update={"core_seconds": core_seconds})})

    def with_scorer(self, kind: str, **known: Any) -> Self:
        """With what is known of the scorers of a kind."""
        before = self.scorers.get(kind, ScorerRates())
        return self.model_copy(update={"scorers": {**self.scorers, kind: before.model_copy(update=known)}})

    def measured(self, files: Iterable[Path]) -> Self:
        """With what `winnow bench --json` printed into these files. Raises SourceError for any other file."""
        rates = self
        for path in files:
            rates = rates._with_bench(path, _read(path))
        return rates

    def _with_bench(self, path: Path, found: Mapping[str, Any]) -> Self:
        try:
            if "pictures_per_second" in found:
                return self.with_download(found["cores"] / found["pictures_per_second"])
            rate, model = found["pairs_per_second"], found["plan"]["model"]
            if found["device"].startswith("no GPU"):
                return self.with_scorer("clip", core_seconds=found["cores"] / rate, model=model)
            return self.with_scorer("clip", gpu_pairs_per_second=rate, model=model)
        except (KeyError, TypeError, AttributeError, ZeroDivisionError):
            raise SourceError(
                f"{path} has no rates: write it with `winnow bench --json > {path.name}`, or with --download beside"
            ) from None


def _read(path: Path) -> Mapping[str, Any]:
    """The JSON object in the last line."""
    try:
        found: Mapping[str, Any] = json.loads(read_text(path).strip().splitlines()[-1])
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {error}") from None
    return found


class Machine(Table):
    """A machine to rent: its cores, the Gbit/s that come in, and the price of an hour."""

    name: str
    cores: int = Field(ge=1)
    gbit: float = Field(gt=0)
    hour: float = Field(ge=0)


class Prices(Table):
    """Prices at a date: of a GB stored for a month, of a GB that leaves, of 1,000 written objects, of machines."""

    as_of: str
    currency: str
    gb_month: float = Field(ge=0)
    gb_out: float = Field(ge=0)
    thousand_puts: float = Field(ge=0)
    cpu: Machine
    gpu: Machine

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Those of a TOML file; None: of `prices.toml`. Raises SourceError for a file with a fault."""
        path = path or Path(__file__).with_name("prices.toml")
        try:
            return cls.model_validate(tomllib.loads(read_text(path)))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from None
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise SourceError(f"{path.name}: {where}: {fault['msg'].lower()}") from None
