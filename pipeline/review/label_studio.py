"""Label Studio: the labels in its JSON and JSON-MIN exports, and tasks for it.

The formats are those of https://labelstud.io/guide/task_format (JSON: a list of tasks with `data` and `annotations`,
each with `result`, `completed_by`, `created_at` and `was_cancelled`), of `Converter.convert_to_json_min` in
HumanSignal/label-studio-sdk (JSON-MIN: a list of annotations, with the fields of `data`, the value of each control by
its name, `annotator` and `created_at`), and of https://labelstud.io/tags/choices (the labelling interface).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from pipeline.errors import SourceError
from pipeline.review.annotation import SKIPPED, Annotations, pair_of, time_of

CONTROL = "label"
"""The name of the Choices in the labelling interface."""

TASKS, INTERFACE = "tasks.json", "labelling-interface.xml"
"""The names of the files that a project is made of."""

_DONE = ("annotations", "completions")
"""The field of a task's annotations, and its name before Label Studio 1.0."""


def is_export(tree: Any) -> bool:
    """Whether a JSON file is a list of tasks or annotations."""
    return isinstance(tree, list) and all(isinstance(each, Mapping) for each in tree)


def read(tasks: Sequence[Mapping[str, Any]], labeller: str) -> Annotations:
    """The labels of an export. `labeller` is who labelled where the file does not say it.

    Raises SourceError for a list of other things.
    """
    found = Annotations()
    if any(isinstance(task.get(name), list) for task in tasks for name in _DONE):
        for task in tasks:
            _read_task(task, labeller, found)
    elif any(CONTROL in task for task in tasks):
        for row in tasks:
            _read_row(row, labeller, found)
    elif tasks:
        raise SourceError(
            f"it is no export of Label Studio: no task has annotations, and none has the field {CONTROL!r}, which the "
            "JSON-MIN format has for a control of that name; export as JSON"
        )
    return found


def tasks(pairs: Iterable[Mapping[str, Any]], prefix: str, predictions: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Tasks to import, as JSON, for pairs with uid, url, caption and the file name `picture`.

    `prefix` stands before the name of a picture. `predictions` has (labeller, label) by uid. Label Studio shows them as
    predictions, and exports them as such, so that they do not come back as labels of whoever sees them.
    """
    made = []
    for pair in pairs:
        data = {name: pair[name] for name in ("uid", "url", "caption")}
        task: dict[str, Any] = {"data": data | {"image": prefix + pair["picture"]}}
        if given := predictions.get(pair["uid"]):
            task["predictions"] = [{"model_version": who, "result": [_result(word)]} for who, word in given]
        made.append(task)
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def interface(labels: Iterable[str]) -> str:
    """The labelling interface of the project, as XML: the picture, its caption, and one of these labels."""
    choices = "".join(
        f"    <Choice value={quoteattr(label)} hotkey={quoteattr(str(number))}/>\n"
        if number < 10
        else f"    <Choice value={quoteattr(label)}/>\n"
        for number, label in enumerate(labels, 1)
    )
    return (
        '<View>\n  <Image name="image" value="$image"/>\n  <Text name="caption" value="$caption"/>\n'
        f'  <Choices name="{CONTROL}" toName="image" choice="single" required="true">\n{choices}  </Choices>\n</View>\n'
    )


def _result(label: str) -> dict[str, Any]:
    return {"from_name": CONTROL, "to_name": "image", "type": "choices", "value": {"choices": [label]}}


def _read_task(task: Mapping[str, Any], labeller: str, found: Annotations) -> None:
    data = task.get("data")
    pair = pair_of(data) if isinstance(data, Mapping) else None
    done: list[Any] = next((task[name] for name in _DONE if isinstance(task.get(name), list)), [])
    for each in done:
        if not isinstance(each, Mapping) or each.get("was_cancelled") or each.get("skipped"):
            found.unused[SKIPPED] += 1
            continue
        time = time_of(each.get("updated_at")) or time_of(each.get("created_at"))
        found.add(pair, _chosen(each.get("result")), _who(each.get("completed_by"), labeller), time)


def _read_row(row: Mapping[str, Any], labeller: str, found: Annotations) -> None:
    time = time_of(row.get("updated_at")) or time_of(row.get("created_at"))
    found.add(pair_of(row), _words(row.get(CONTROL)), _who(row.get("annotator"), labeller), time)


def _chosen(result: Any) -> list[str]:
    """The choices of an annotation: those of the control of our name, if there is one, or else of all Choices."""
    regions = [each for each in result if isinstance(each, Mapping)] if isinstance(result, list) else []
    choices = [each for each in regions if each.get("type") == "choices"]
    own = [each for each in choices if each.get("from_name") == CONTROL]
    return [word for each in own or choices for word in _words(each.get("value"))]


def _words(value: Any) -> list[str]:
    """The choices of a value: a word, several, or a mapping that has them."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, Mapping):
        return _words(value.get("choices"))
    return [word for each in value for word in _words(each)] if isinstance(value, list) else []


def _who(by: Any, labeller: str) -> str:
    """The labeller: an id, or a record with an e-mail address or an id."""
    if isinstance(by, Mapping):
        by = by.get("email") or by.get("username") or by.get("id")
    return str(by) if isinstance(by, int | str) and str(by) else labeller
