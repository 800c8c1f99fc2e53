"""Values of Arrow columns as JSON, and their types as Hugging Face's `datasets` names them.

`datasets` would guess the types of JSON from the first rows. With these types in the dataset card it does not.
https://huggingface.co/docs/hub/datasets-manual-configuration
"""

import base64
import json
import math
from typing import Any

import pyarrow as pa


def feature(kind: pa.DataType) -> dict[str, Any]:
    """The type that `datasets` has for a column of this type in JSON, of one kind of integer and of float."""
    types = pa.types
    if types.is_boolean(kind):
        return {"dtype": "bool"}
    if types.is_integer(kind) and not types.is_uint64(kind):
        return {"dtype": "int64"}
    if types.is_floating(kind):
        return {"dtype": "float64"}
    if _is_list(kind) and not _is_text(kind.value_type):
        inner = feature(kind.value_type)
        return {"list": inner["struct"] if "struct" in inner else inner.get("dtype", inner)}
    if types.is_struct(kind) and kind.num_fields and not any(_is_text(each.type) for each in kind.fields):
        return {"struct": [{"name": each.name, **feature(each.type)} for each in kind.fields]}
    return {"dtype": "string"}


def value(thing: Any, kind: pa.DataType) -> Any:
    """The value as JSON has it, of the type of `feature`. A 64-bit integer without a sign is text: few readers hold it.

    What is no number is null, bytes are base64, and what has no type of its own is text.
    """
    if thing is None or (isinstance(thing, float) and not math.isfinite(thing)):
        return None
    if "dtype" in (made := feature(kind)):
        return _text(thing) if made["dtype"] == "string" else thing
    if "list" in made:
        return [value(each, kind.value_type) for each in thing]
    return {each.name: value(thing[each.name], each.type) for each in kind.fields}


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    """Whether a value of this type makes the whole column text: a map, for example."""
    return bool(pa.types.is_map(kind) or pa.types.is_union(kind) or (pa.types.is_struct(kind) and not kind.num_fields))


def _text(thing: Any) -> str:
    if isinstance(thing, str):
        return thing
    if isinstance(thing, bytes):
        return base64.b64encode(thing).decode()
    return json.dumps(thing, ensure_ascii=False, default=str) if isinstance(thing, list | dict) else str(thing)
