"""Whether observations of published studies hold in a sweep: a stated rule on intervals of mean recall.

Each observation is a statement about differences between cells. A difference is *above* or *below* 0 if its interval
is, and *none* if its interval is within `differences.MARGIN` of 0. What is neither cannot be told. Nothing can be told
from fewer than `SEEDS` seeds, nor where no cell of the comparison is above chance. Intervals are of 95 % for each
difference alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from training.measures.intervals import LEVEL, Mean
from training.studies.differences import HOLDS, NOT, OPEN, Difference, Judgement, judge_all, judge_one

SEEDS = 3
"""The fewest seeds from which anything is told."""

VERSION = 1


class Scored(NamedTuple):
    """The values of a cell, among them objective, batch, pruning, masking, noise and noise_share, and its score."""

    values: Mapping[str, Any]
    mean: Mean


class Finding(NamedTuple):
    """An observation, where it was looked for (the values that stay the same), the verdict, and the figures."""

    observation: str
    where: str
    verdict: str
    reason: str


def find(cells: Sequence[Scored], seeds: int, chance: float) -> list[Finding]:
    """All observations that the cells can be asked about. `chance` is the mean recall of a random order."""
    findings = []
    for observation, varied, judge in OBSERVATIONS:
        for where, group in _slices(cells, varied):
            for shown, involved, (verdict, differences) in judge(group):
                reason = "; ".join(map(str, differences))
                if seeds < SEEDS:
                    verdict, reason = OPEN, f"{seeds} seeds are fewer than {SEEDS}; {reason}"
                elif not any(_low(each) > chance for each in involved):
                    verdict, reason = OPEN, f"no cell is above chance; {reason}"
                here = ", ".join(filter(None, (where, shown)))
                findings.append(Finding(observation, here, verdict, reason))
    return findings


Group = Mapping[tuple[Any, ...], Mean]
"""Means by the values of the keys that vary."""

Judged = Iterator[tuple[str, list[Mean], Judgement]]
"""What stays the same beside, the means that are compared, and the judgement."""


def small_batches(group: Group) -> Judged:
    """Sigmoid and softmax differ at the smallest batch, and by more than at the largest one."""
    batches = _both(group)
    if len(batches) < 2:
        return
    small, large = (_objectives(group, batch) for batch in (batches[0], batches[-1]))
    size = [Mean(abs(a.point - b.point), np.abs(a.resampled - b.resampled)) for a, b in (small, large)]
    here = Difference.of(f"sigmoid - softmax at {batches[0]}", *small)
    gap = Difference.of(f"its size at {batches[0]} - at {batches[-1]}", *size)
    verdict = OPEN
    if (here.above or here.below) and gap.above:
        verdict = HOLDS
    elif here.none or gap.below:
        verdict = NOT
    yield _range(batches), [*small, *large], (verdict, [here, gap])


def largest_batch(group: Group) -> Judged:
    """Sigmoid is worse than softmax at the largest batch."""
    batches = _both(group)
    if len(batches) < 2:
        return
    pair = _objectives(group, batches[-1])
    yield _range(batches), list(pair), judge_one(Difference.of(f"softmax - sigmoid at {batches[-1]}", *reversed(pair)))


def medium_batch(group: Group) -> Judged:
    """Both are worse at the largest batch than at the medium one, the middle of the sizes, the larger of two."""
    batches = _both(group)
    if len(batches) < 3:
        return
    medium, large = (_objectives(group, batch) for batch in (batches[len(batches) // 2], batches[-1]))
    shown = f"at {batches[len(batches) // 2]} - at {batches[-1]}"
    differences = [
        Difference.of(f"{name} {shown}", better, worse)
        for name, better, worse in zip(("sigmoid", "softmax"), medium, large, strict=True)
    ]
    yield _range(batches), [*medium, *large], judge_all(differences)


def noise(group: Group) -> Judged:
    """From no noise to the largest share of it, sigmoid loses less mean recall than softmax."""
    for kind in sorted({kind for _, kind, _ in group} - {"none"}):
        share = max(share for _, each, share in group if each == kind)
        noisy = [group.get((name, kind, share)) for name in ("sigmoid", "softmax")]
        clean = [group.get((name, "none", 0.0)) for name in ("sigmoid", "softmax")]
        means = [each for each in (*noisy, *clean) if each]
        if len(means) == 4:
            sigmoid, softmax = (Mean(means[i].point - means[i + 2].point, means[i].resampled - means[i + 2].resampled)
                                for i in (0, 1))  # fmt: skip
            difference = Difference.of("what noise changes, sigmoid - softmax", sigmoid, softmax)
            yield f"{kind} at {share:g}", means, judge_one(difference)


def hard_is_best(group: Group) -> Judged:
    """Of equal shares of the negatives, the hardest train better than random ones and than the easiest."""
    for masking in sorted({masking for _, masking in group} - {0.0}):
        means = [group.get((how, masking)) for how in ("hard", "random", "easy")]
        found = [each for each in means if each]
        if len(found) == 3:
            differences = [
                Difference.of(f"hard - {how}", found[0], other)
                for how, other in zip(("random", "easy"), found[1:], strict=True)
            ]
            yield f"masking {masking:g}", found, judge_all(differences)


def easy_is_bad(group: Group) -> Judged:
    """With the easiest negatives alone, training is worse than with all."""
    whole = group.get(("none", 0.0))
    for masking in sorted({masking for how, masking in group if how == "easy"}):
        if whole:
            easy = group["easy", masking]
            yield f"masking {masking:g}", [whole, easy], judge_one(Difference.of("all - easy", whole, easy))


OBSERVATIONS: tuple[tuple[str, tuple[str, ...], Callable[[Group], Judged]], ...] = (
    ("sigmoid and softmax differ mainly at small batches", ("objective", "batch"), small_batches),
    ("sigmoid is worse than softmax at the largest batch", ("objective", "batch"), largest_batch),
    ("both are worse at the largest batch than at a medium one", ("objective", "batch"), medium_batch),
    ("sigmoid bears noise better", ("objective", "noise", "noise_share"), noise),
    ("of pruned negatives the hardest are best", ("pruning", "masking"), hard_is_best),
    ("training on the easiest negatives alone is bad", ("pruning", "masking"), easy_is_bad),
)
"""Each with the keys that vary in it, and its judge. All but the last two are of the study's slides; these two are of
the paper that its slides on pruning show (Zhai et al. 2023)."""


def _slices(cells: Sequence[Scored], varied: Sequence[str]) -> Iterator[tuple[str, Group]]:
    """The cells by the values of all keys that do not vary, in their order."""
    groups: dict[str, dict[tuple[Any, ...], Mean]] = {}
    shown = [name for name in (cells[0].values if cells else ()) if _differs(cells, name) and name not in varied]
    for values, mean in cells:
        where = ", ".join(f"{name} {values[name]}" for name in shown)
        groups.setdefault(where, {})[tuple(values[name] for name in varied)] = mean
    yield from groups.items()


def _differs(cells: Sequence[Scored], name: str) -> bool:
    return len({str(each.values[name]) for each in cells}) > 1


def _both(group: Group) -> list[int]:
    """The batches that both objectives were trained with, ascending."""
    return sorted({batch for _, batch in group if {("sigmoid", batch), ("softmax", batch)} <= group.keys()})


def _objectives(group: Group, batch: int) -> tuple[Mean, Mean]:
    return group["sigmoid", batch], group["softmax", batch]


def _range(batches: Sequence[int]) -> str:
    return f"batches {batches[0]:,} to {batches[-1]:,}"


def _low(mean: Mean) -> float:
    return float(np.quantile(mean.resampled, (1 - LEVEL) / 2))
