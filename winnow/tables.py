"""Tables in the form that the caller works with: Arrow, pandas or polars."""

from typing import Any, Literal

import pyarrow as pa

from pipeline.errors import WinnowError

Form = Literal["arrow", "pandas", "polars"]
"""What a table is returned as: `pyarrow.Table`, `pandas.DataFrame` or `polars.DataFrame`."""


def as_form(table: pa.Table, form: Form) -> Any:
    """The table in that form. Raises WinnowError for an unknown form, and for polars where it is not installed."""
    if form == "arrow":
        return table
    if form == "pandas":
        return table.to_pandas()
    if form == "polars":
        try:
            import polars
        except ImportError:
            raise WinnowError("polars is not installed here: pip install polars, or take form='pandas'") from None
        return polars.from_arrow(table)
    raise WinnowError(f"there is no form {form!r}: take 'arrow', 'pandas' or 'polars'")
