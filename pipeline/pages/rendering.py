"""From a template in this folder to a page in a file, which appears whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.pages.untrusted import plain


def write_page(template: str, path: Path, facts: Mapping[str, Any]) -> None:
    """Render a template with these variables to `path`. Its folder is created. Text is escaped. Raises OSError.

    Templates have two more filters: `share` of a whole, in percent, and `plain` for text of strangers.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": lambda part, whole: f"{part / whole:.1%}" if whole else "–", "plain": plain}
    page = environment.get_template(template).render(facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)  # a reader sees the old page or the new one
    finally:
        part.unlink(missing_ok=True)
