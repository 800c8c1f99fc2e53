"""What a mix is worth: the reference learner, trained on what the mix keeps, against what single columns keep.

Every column keeps as many pairs as the mix, at its better end. Which end that is, and which column is the best one, is
chosen on the pairs and reference pairs that the mix was learned from. The losses are those of reference pairs that
were not learned from, after a training on kept pairs of the fold that was not learned from.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.mixing import reference_learner
from pipeline.mixing.learn import Mixture
from pipeline.mixing.pairs import Floats, Pairs
from pipeline.mixing.spread import Spread, spread
from pipeline.progress import StepProgress, silent_step


@dataclass(frozen=True)
class Comparison:
    """Losses of held-out reference pairs: the lower, the better. `columns` is aligned with the mix's columns.

    `chosen` counts by column in how many refits it was the best one, and `best` is the loss of the chosen ones.
    `gain` is `best` - `mixed`, positive for a mix that is better; `over_random` is `random` - `mixed`.
    """

    mixed: Spread
    columns: tuple[Spread, ...]
    chosen: tuple[int, ...]
    best: Spread
    random: Spread
    gain: Spread
    over_random: Spread

    @property
    def better(self) -> bool:
        """Whether the mix is better than the best single column: its interval excludes zero."""
        return self.gain.low > 0


def compare(
    pool: Pairs,
    reference: Pairs,
    mixture: Mixture,
    keep: float,
    progress: StepProgress = silent_step,
) -> Comparison:
    """Compare what is kept of the pool if a share `keep`, 0 to 1, is kept. `pool` and `reference` as for `learn`."""
    folds, refits, columns = mixture.weights.shape
    losses, best = np.empty((folds, refits, columns + 2)), np.empty((folds, refits), np.int64)
    for fold in range(folds):
        for refit in range(refits):
            losses[fold, refit], best[fold, refit] = _losses(pool, reference, mixture, keep, (fold, refit))
            progress(fold * refits + refit + 1, folds * refits)
    mixed, random, singles = losses[..., 0], losses[..., 1], losses[..., 2:]
    chosen = np.take_along_axis(singles, best[..., None], axis=2)[..., 0]
    return Comparison(
        spread(mixed),
        tuple(spread(singles[..., column]) for column in range(columns)),
        tuple(np.bincount(best.ravel(), minlength=columns).tolist()),
        spread(chosen),
        spread(random),
        spread(chosen - mixed),
        spread(random - mixed),
    )


def _losses(pool: Pairs, reference: Pairs, mixture: Mixture, keep: float, place: tuple[int, int]) -> tuple[Floats, int]:
    """Of one fold and refit, the losses of the mix, a random choice, and each column; and the best column's number."""
    fold, refit = place
    learned_half, held_out = reference.outside_of(fold).halves(refit)
    learned_on, scored = pool.outside_of(fold), pool.take(pool.fold == fold)
    assert learned_on.columns is not None
    assert scored.columns is not None
    standard = mixture.standards[fold]
    before, after = standard(learned_on.columns), standard(scored.columns)
    seed = fold * len(mixture.weights[fold]) + refit

    def loss(pairs: Pairs, scores: Floats, clean: Pairs) -> float:
        kept = np.argsort(-scores, kind="stable")[: max(round(keep * len(pairs)), 2)]
        return reference_learner.evaluate(reference_learner.train(pairs.take(np.sort(kept)), seed), clean)

    ends = np.array([
        [loss(learned_on, sign * column, learned_half) for sign in (1, -1)] for column in before.T
    ])  # fmt: skip
    sign = np.where(ends[:, 0] <= ends[:, 1], 1, -1)
    random = np.random.default_rng([seed, 1]).random(len(scored))
    mixes = [after @ mixture.weights[fold, refit], random, *(sign * after).T]
    return np.array([loss(scored, scores, held_out) for scores in mixes]), int(ends.min(axis=1).argmin())
