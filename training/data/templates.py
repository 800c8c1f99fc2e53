"""The sentences in which a class is named, by the name of a set, and lists of names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.errors import SourceError
from pipeline.scorers.class_labels import Classes

ONE = "a photo of a {}"
"""The sentence that is used where nothing else is said."""

Template = Callable[[str], str]
"""From a name to a sentence."""

SETS = ("one", "seven", "eighty")
"""The sets by name: `ONE`, and those that CLIP's authors chose for ImageNet, as open_clip has them."""

IMAGENET = "imagenet"


def named(text: str) -> Sequence[Template]:
    """The templates of a set by its name, or of a file with one sentence a line, {} in place of the name.

    Raises SourceError for a name that is neither, and for a line without {}.
    """
    if text == "one":
        return (ONE.format,)
    if text in SETS:
        import open_clip

        sets = {"seven": open_clip.SIMPLE_IMAGENET_TEMPLATES, "eighty": open_clip.OPENAI_IMAGENET_TEMPLATES}
        return tuple(sets[text])
    sentences = _lines(text, f"templates: there is no set {text!r}: use {', '.join(SETS)}, or a file")
    if faulty := next((each for each in sentences if each.count("{}") != 1), None):
        raise SourceError(f"{text}: the line {faulty!r} needs {{}} once, where the name goes")
    return tuple(each.format for each in sentences)


def candidates(text: str, classes: Classes) -> Mapping[str, Sequence[str]]:
    """The candidates by name, each with its words: "task" has the classes, "imagenet" ImageNet's, a file its lines.

    A line is a name, and other words for it after tabs. Every class must be among the candidates, but for case. Raises
    SourceError for one that is not.
    """
    if text == "task":
        return {name: list(words) for name, words in classes.items()}
    if text == IMAGENET:
        import open_clip

        found = {name: [name] for name in open_clip.IMAGENET_CLASSNAMES}
    else:
        fields = [
            line.split("\t") for line in _lines(text, f"names: there is no file {text}: use task, imagenet or a file")
        ]
        found = {name.strip(): [each.strip() for each in (name, *more) if each.strip()] for name, *more in fields}
    own = {name.casefold() for name in found}
    if missing := [name for name in classes if name.casefold() not in own]:
        raise SourceError(f"{text}: the classes {', '.join(missing)} are not among its {len(found):,} names: add them")
    if len(found) < 2:
        raise SourceError(f"{text}: one name is nothing to choose from: add others")
    return found


def prompts(classes: Mapping[str, Sequence[str]], templates: Sequence[Template] = (ONE.format,)) -> list[list[str]]:
    """The wordings of each class: every template with each of its words."""
    return [[template(word) for word in words for template in templates] for words in classes.values()]


def _lines(text: str, missing: str) -> list[str]:
    """The lines of a file that are not blank. Raises SourceError."""
    path = Path(text).expanduser()
    if not path.is_file():
        raise SourceError(missing)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise SourceError(f"{text} is not UTF-8") from None
    if not (found := [line for line in lines if line]):
        raise SourceError(f"{text} has no line")
    return found
