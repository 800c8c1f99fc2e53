"""Lists of questions about pictures: their caption is the question, and question and answer travel along."""

from typing import Any

QUESTIONS = ("vqav2", "daquar")
"""Formats of data sets of questions, whose files have no columns to name."""


def with_questions(table: dict[str, Any]) -> dict[str, Any]:
    """The table [pairs], with the columns of a list of questions if it is one. Raises ValueError for a wrong mix."""
    if table.get("format") in QUESTIONS:
        return {**table, "question": "question", "answer": "answer", **_asked_columns(table)}
    question, answer = table.get("question"), table.get("answer")
    if not (question or answer):
        return table
    if not (question and answer):
        raise ValueError("question and answer belong together: name the columns of both")
    if table.get("caption", question) != question:
        raise ValueError("the caption of a question is the question and its answer: remove caption")
    extra = table.get("extra", ())
    more = tuple(each for each in extra if each not in (question, answer)) if isinstance(extra, list | tuple) else ()
    return {**table, "caption": question, "extra": (question, answer, *more)}


def _asked_columns(table: dict[str, Any]) -> dict[str, Any]:
    """The columns of a data set of questions. Raises ValueError for keys that it does not have, and those it needs."""
    named = {"columns", "url", "caption", "question", "answer", "extra"} & table.keys()
    if named - {"question", "answer"} and table.get("caption") != "question":
        raise ValueError(f"format = {table['format']} has columns of its own: remove {', '.join(sorted(named))}")
    if (table.get("annotations") is None) == (table["format"] == "vqav2"):
        raise ValueError("annotations is the second file of format = vqav2, which needs it; no other format has one")
    try:
        whole = str(table.get("pictures") or "")
        written = whole.format(image=1)
    except (KeyError, ValueError, IndexError):
        written = whole
    if written == whole:
        raise ValueError(
            'pictures is the address of a picture, with {image} for its number: "http://host/{image:012d}.jpg"'
        )
    return {"caption": "question", "extra": ("question", "answer")}
