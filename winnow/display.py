"""Results as HTML, for notebooks. Everything that people wrote is escaped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, StrictUndefined, Template

from pipeline.pages.untrusted import plain

_TABLE = """
<table style="border-collapse: collapse">
<caption style="text-align: left; font-weight: bold; padding: 4px 10px">{{ title | plain }}</caption>
<thead><tr>{% for each in columns %}<th style="{{ style }}">{{ each }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr>
{% for cell in row %}
<td style="{{ style }}"{% if cell.hint %} title="{{ cell.hint }}"{% endif %}>
{% if cell.share is not none %}
<span style="display: inline-block; width: 120px; margin-right: 6px">
<span style="display: inline-block; height: 10px; background: #1b7837; width: {{ '%.1f' | format(100 * cell.share) }}%">
</span></span>
{% endif %}
{{ cell.text | plain }}
</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table>
"""

_GRID = """
<div><b>{{ title | plain }}</b></div>
<div style="display: flex; flex-wrap: wrap; gap: 10px">
{% for picture, words in cells %}
<figure style="width: 176px; margin: 0">
{% if picture %}
<img src="{{ picture }}" alt="" style="max-width: 176px; max-height: 176px; border-radius: 4px">
{% else %}
<div style="width: 176px; height: 120px; border: 1px dashed #888">no picture</div>
{% endif %}
<figcaption style="font-size: 12px; line-height: 1.3">{{ words | plain }}</figcaption>
</figure>
{% endfor %}
</div>
"""

_STYLE = "padding: 2px 10px; border-bottom: 1px solid #8884; text-align: left; font-variant-numeric: tabular-nums"


@dataclass(frozen=True)
class Cell:
    """A text, with another one under the pointer, and a bar as long as `share` (0 to 1) before it."""

    text: str
    hint: str = ""
    share: float | None = None

    @classmethod
    def count(cls, number: int, whole: int | None = None) -> "Cell":
        """A count, with a bar for its share of the whole."""
        return cls(f"{number:,}", share=None if whole is None else number / whole if whole else 0.0)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table with a title."""
    return _template(_TABLE).render(title=title, columns=columns, rows=rows, style=_STYLE)


def grid(title: str, cells: Iterable[tuple[str | None, str]]) -> str:
    """Pictures with a text below each. A picture is a data URI; None is shown as an empty frame."""
    return _template(_GRID).render(title=title, cells=cells)


@cache
def _template(text: str) -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": plain}
    return environment.from_string(text)
