"""Text-based person search: recall of pictures by captions that name a person, beside that of all other captions.

The gallery is the same for both: all held-out pictures. Person search in the narrow sense (Li et al. 2017, CUHK-PEDES)
has a gallery of people only, and a person's identity as the target. Here the target is the caption's own picture.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.measures import medians

AT = (1, 5, 10)
"""The k of recall at k."""

_PEOPLE = """
    adult baby boy boyfriend bride brother child couple dad daughter father female friend gentleman girl girlfriend
    groom guy husband infant kid lady male man mother mom parent people person sister somebody someone son teen
    teenager toddler wife woman youth audience crew crowd family pedestrian spectator artist athlete backpacker
    ballerina bicyclist biker boxer cheerleader clown climber cop cowboy cyclist dancer diver driver fan firefighter
    fisherman goalie golfer gymnast hiker jogger juggler kayaker lifeguard musician nun officer performer player
    policeman racer referee rider rollerblader runner sailor singer skateboarder skater skier skiier snowboarder
    soldier student surfer swimmer teacher vendor wakeboarder waiter waitress worker wrestler
"""

_IRREGULAR = "babies children families fishermen gentlemen ladies men policemen waitresses wives women"

PEOPLE = frozenset([*_PEOPLE.split(), *(f"{word}s" for word in _PEOPLE.split()), *_IRREGULAR.split()])
"""Words that name a person or people: ages, kinship, crowds, sports and occupations of photographs, and plurals.

It is a list of our own, with frequent words of Flickr8k, where 69 % of the captions have one of them. Pronouns
are not in it, and neither are words that are often used of animals or things (team, group, owner).
"""


@dataclass(frozen=True)
class Recalls:
    """Recall at each k of `AT`, 0 to 1, and the median rank as of `medians`, of so many queries; None without any."""

    queries: int
    recall: Mapping[int, float | None]
    median_rank: int | None


def names_person(caption: str) -> bool:
    """Whether one of the caption's words is in `PEOPLE`, in any case."""
    return not PEOPLE.isdisjoint(re.findall(r"[a-z]+", caption.lower()))


def by_person(captions: Sequence[str], ranks: npt.NDArray[np.int64]) -> dict[str, Recalls]:
    """The recalls of captions that name a person ("people"), and of the "others".

    `ranks`, [captions], has for each caption the rank of its picture among all held-out pictures, from 1, as
    `training.measures.matching.ranks` counts it. Raises ValueError if the lengths differ.
    """
    if len(captions) != len(ranks):
        raise ValueError(f"{len(captions)} captions have {len(ranks)} ranks")
    people = np.array([names_person(caption) for caption in captions], bool)
    return {"people": _recalls(ranks[people]), "others": _recalls(ranks[~people])}


def _recalls(ranks: npt.NDArray[np.int64]) -> Recalls:
    if not len(ranks):
        return Recalls(0, dict.fromkeys(AT), None)
    return Recalls(len(ranks), {k: float(np.mean(ranks <= k)) for k in AT}, medians.median(ranks))
