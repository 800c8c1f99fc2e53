"""What the report says of pairs without a picture: causes of failure, and link rot by domain."""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from pipeline.filtering.domain import DOMAIN
from pipeline.manifest.manifest import Manifest
from pipeline.pages.untrusted import plain

DOMAINS = 12
"""Domains with a row of their own."""


@dataclass(frozen=True)
class Cause:
    """A cause of failure: `count` pairs, their share of all distinct pairs, and the error text of one of them."""

    name: str
    count: int
    share: float
    example: str


@dataclass(frozen=True)
class Domain:
    """A domain with failed pairs: `share` of its `pairs` failed. `causes` counts them, the largest first."""

    name: str
    pairs: int
    failed: int
    share: float
    causes: Mapping[str, int]


def causes(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Cause]:
    """The causes in the view `rows`, the most frequent first."""
    counted = con.execute(
        "SELECT cause, count(*) AS n, coalesce(any_value(error), '') FROM rows WHERE status <> 'ok' "
        "GROUP BY cause ORDER BY n DESC, cause"
    ).fetchall()
    rows = manifest.counts.input - manifest.counts.repeated
    return [Cause(plain(cause or "unknown"), count, count / rows, plain(error)) for cause, count, error in counted]


def domains(con: duckdb.DuckDBPyConnection) -> list[Domain]:
    """The domains in the view `rows` with the most failed pairs; empty if all pairs come from one domain."""
    counted = con.execute(
        f"WITH named AS (SELECT coalesce({DOMAIN}, '') AS domain, status, cause FROM rows) "
        "SELECT domain, count(*), count(*) FILTER (status <> 'ok') AS failed, "
        "histogram(coalesce(cause, 'unknown')) FILTER (status <> 'ok') FROM named "
        "WHERE (SELECT count(DISTINCT domain) FROM named) > 1 "
        f"GROUP BY domain HAVING failed > 0 ORDER BY failed DESC, domain LIMIT {DOMAINS}"
    ).fetchall()
    return [
        Domain(plain(name) or "no domain", pairs, failed, failed / pairs, _by_count(counts))
        for name, pairs, failed, counts in counted
    ]


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return {plain(cause): counts[cause] for cause in sorted(counts, key=lambda cause: (-counts[cause], cause))}
