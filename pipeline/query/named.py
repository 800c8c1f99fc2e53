"""Queries with a name: `winnow sql @worst-domains` runs one. They take no arguments; copy one to change it."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import QueryError, did_you_mean
from pipeline.filtering.domain import DOMAIN


@dataclass(frozen=True)
class Query:
    """A query and the description of its result, in one line."""

    description: str
    sql: str


QUERIES: Mapping[str, Query] = {
    "funnel": Query(
        "pairs that each filter drops, and pairs that only it drops",
        "SELECT reason AS filter, count(*) AS drops, count(*) FILTER (reasons = 1) AS alone_drops, "
        "count(*) FILTER (list_contains(unknown, reason)) AS unscored "
        "FROM (SELECT unnest(dropped_by) AS reason, len(dropped_by) AS reasons, unknown FROM dropped) "
        "GROUP BY reason ORDER BY drops DESC",
    ),
    "worst-domains": Query(
        "domains with at least 10 pairs, by the share of pairs that failed or were dropped",
        f"SELECT {DOMAIN} AS domain, count(*) AS pairs, count(*) FILTER (status <> 'ok') AS failed, "
        "count(*) FILTER (status = 'ok' AND NOT kept) AS dropped, round(1 - avg(kept::INT), 3) AS lost "
        "FROM rows GROUP BY domain HAVING count(*) >= 10 ORDER BY lost DESC, pairs DESC, domain LIMIT 50",
    ),
    "score-by-language": Query(
        "pairs, mean similarity and share kept, by language of the caption",
        "SELECT captions_language AS language, count(*) AS pairs, round(avg(clip_similarity), 4) AS similarity, "
        "round(avg(kept::INT), 3) AS kept FROM rows WHERE status = 'ok' "
        "GROUP BY language ORDER BY pairs DESC, language",
    ),
    "near-threshold": Query(
        "pairs that at most one filter drops, by the distance of their similarity to the lowest kept one",
        "SELECT * FROM (SELECT round(clip_similarity - (SELECT min(clip_similarity) FROM kept), 4) AS above, kept, "
        "dropped_by, caption, url FROM rows WHERE status = 'ok' AND clip_similarity IS NOT NULL "
        "AND (kept OR len(dropped_by) = 1)) ORDER BY abs(above), url LIMIT 50",
    ),
    "link-rot": Query(
        "failed pairs by cause",
        "SELECT cause, count(*) AS pairs, round(count(*) / (SELECT count(*) FROM rows), 4) AS of_all "
        "FROM failed GROUP BY cause ORDER BY pairs DESC, cause",
    ),
    "placeholders": Query(
        "pictures with the same bytes at 5 URLs or more: mostly placeholders for pictures that are gone",
        "SELECT sha256, count(DISTINCT url) AS urls, count(*) AS pairs, count(*) FILTER (kept) AS kept, "
        "any_value(width) AS width, any_value(height) AS height, min(url) AS url FROM rows WHERE status = 'ok' "
        "GROUP BY sha256 HAVING urls >= 5 ORDER BY urls DESC, sha256 LIMIT 50",
    ),
    "rewritten": Query(
        "URLs whose bytes changed: the first and the last digest, and the first manifest with each",
        "SELECT url, first(sha256 ORDER BY place, sha256) AS first_seen, last(sha256 ORDER BY place, sha256) AS "
        "last_seen, left(arg_min(manifest, place), 12) AS first_in, left(arg_max(manifest, place), 12) AS last_in FROM "
        "(SELECT url, sha256, arg_min(manifest, number) AS manifest, min(number) AS place FROM history JOIN "
        "(SELECT id, row_number() OVER (ORDER BY time, rowid) AS number FROM manifests) ON manifest = id "
        "WHERE sha256 IS NOT NULL GROUP BY url, sha256) GROUP BY url HAVING count(*) > 1 ORDER BY url LIMIT 50",
    ),
    "duplicates": Query(
        "pairs, mean similarity and share kept, by number of copies of the picture",
        "SELECT duplicates_count AS copies, count(*) AS pairs, round(avg(clip_similarity), 4) AS similarity, "
        "round(avg(kept::INT), 3) AS kept FROM rows WHERE status = 'ok' GROUP BY duplicates_count ORDER BY 1",
    ),
    "trained": Query(
        "trials and their mean score, by manifest, kind of task, learner and arm",
        "SELECT left(t.manifest, 12) AS manifest, any_value(m.recipe) AS recipe, kind, learner, arm, "
        "CASE WHEN augmented THEN augmentation ELSE 'plain' END AS augmented, "
        "count(DISTINCT t.key) AS trials, round(avg(score), 4) AS score FROM trials t "
        "LEFT JOIN manifests m ON m.id = t.manifest GROUP BY t.manifest, kind, learner, arm, 6 ORDER BY ALL",
    ),
    "trained-on": Query(
        "rows with the most trials that were trained on them, and the mean score of these trials",
        "SELECT uid, count(*) AS trials, sum(times) AS times, round(avg(score), 4) AS score, "
        "any_value(caption) AS caption FROM trained_on JOIN rows USING (uid) "
        "GROUP BY uid ORDER BY trials DESC, uid LIMIT 50",
    ),
    "flipped": Query(
        "rows that were kept in some manifests and not in others, with the number of each",
        "SELECT uid, count(*) FILTER (kept) AS kept_in, count(*) FILTER (NOT kept) AS not_in FROM history "
        "GROUP BY uid HAVING kept_in > 0 AND not_in > 0 ORDER BY not_in DESC, uid LIMIT 50",
    ),
}


def resolve(text: str) -> str:
    """The SQL of the query "@name"; any other text is returned as it is. Raises QueryError for an unknown name."""
    if not text.startswith("@"):
        return text
    if text[1:] not in QUERIES:
        raise QueryError(f"no query is called {text[1:]!r}{did_you_mean(text[1:], QUERIES)}")
    return QUERIES[text[1:]].sql
