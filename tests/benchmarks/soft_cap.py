"""Soft cap sampling of many pairs: `python tests/benchmarks/soft_cap.py ROWS`.

Prints processor time and seconds of the draws alone, of the draws with the hashes of uids, and of the published
procedure word by word, which draws from all pairs in every round.
"""

import resource
import sys
import time

import numpy as np

from filters.selections import SoftCap
from pipeline.selection import soft_cap
from pipeline.selection.survivors import Survivors

SCORES = SoftCap(by="score", temperature=0.01, penalty=0.02)


def timed(what, call):
    started, spent = time.perf_counter(), time.process_time()
    found = call()
    print(f"{what}: {time.perf_counter() - started:.1f} s, {time.process_time() - spent:.1f} of processor time")
    return found


def published(scores, penalty, samples, batch, generator):
    """Gumbel top-k over all pairs in each round. The copies, and the seconds of a round."""
    scores, copies, rounds = scores.copy(), np.zeros(len(scores), np.int64), 0
    started = time.perf_counter()
    while copies.sum() < samples and rounds < 20:
        keys = scores + generator.gumbel(size=len(scores))
        drawn = np.argpartition(-keys, batch)[:batch]
        copies[drawn] += 1
        scores[drawn] -= penalty
        rounds += 1
    return (time.perf_counter() - started) / rounds


def main(rows):
    random = np.random.default_rng(0)
    scores = random.normal(0.25, 0.04, rows)
    seeds = random.integers(2**64, size=rows, dtype=np.uint64)
    t, batch = SCORES.temperature, -(-rows // soft_cap.PUBLISHED)
    copies = timed("draws", lambda: soft_cap.draw(scores / t, SCORES.penalty / t, rows, batch, seeds))
    print(
        f"kept {np.mean(copies > 0):.1%} of {rows:,} pairs, at most {copies.max()} times, mean score of a sample "
        f"{np.average(scores, weights=copies):.3f}, of all {scores.mean():.3f}"
    )
    uids = [f"{number:032x}" for number in range(rows)]
    survivors = Survivors(uids, rows, {"by": scores}, lambda scorer: None, lambda scorer: None)
    timed("with hashes of uids", lambda: soft_cap.choose(SCORES, survivors))
    each = published(scores / t, SCORES.penalty / t, rows, batch, random)
    print(f"the published procedure: {each:.3f} s a round, {each * soft_cap.PUBLISHED:.0f} s in all")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")


if __name__ == "__main__":
    main(int(sys.argv[1]))
