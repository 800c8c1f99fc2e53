"""What training on the exported pairs was worth, for the card of an export. Every learner is reported."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.export.content import Content
from pipeline.export.markdown import table, text
from pipeline.trials.trials import gain_of

_NONE = "Nothing: no model was trained to compare these pairs with all pairs, or with a random subset of the same size."


def measured(content: Content) -> Iterator[str]:
    """Lines of Markdown: the scores of the newest trials, and the differences with their intervals."""
    gain = gain_of(content.manifest.storage, content.manifest.id) if content.published else None
    if gain is None:
        yield _NONE
        return
    metric, score = gain["metrics"][0]
    yield "Learners were trained on all pairs (raw), on the kept ones (filtered), and on a random subset of the same "
    yield f"number of pairs, {gain['budget']['seeds']} seeds each. The score is {text(score)} (standard deviation over "
    yield f"seeds) on {text(gain['test']['says'])}. All learners that were named are here."
    yield ""
    yield from table(("learner", "trained on", "pairs>", f"{text(score)}>"), _scores(gain, metric))
    yield from ["", f"Differences, each with its interval ({text(gain['interval'])}):", ""]
    yield from table(("learner", "difference", "mean>", "low>", "high>", "the interval"), _differences(gain))


def _scores(gain: Mapping[str, Any], metric: str) -> Iterator[tuple[str, ...]]:
    for learner in gain["learners"]:
        for row in learner["rows"]:
            if row["augmented"] is False:
                mean, deviation = row[f"{metric}_mean"], row[f"{metric}_sd"]
                yield (
                    text(learner["name"]),
                    text(row["arm"]),
                    f"{row['pairs_mean']:,.0f}",
                    f"{mean:.3f} ({deviation:.3f})",
                )
    yield "none", text(gain["baseline"]["says"]), "", f"{gain['baseline'][metric]:.3f}"


def _differences(gain: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for learner in gain["learners"]:
        for each in learner["differences"]:
            if each["name"] in ("filtered - raw", "filtered - random"):
                numbers = (f"{each[name]:+.3f}" for name in ("difference", "low", "high"))
                ends = "leaves out 0" if each["clear"] else "includes 0"
                yield text(learner["name"]), text(each["name"]), *numbers, ends
