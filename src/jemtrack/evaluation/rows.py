"""A table's rows as plain mappings."""

from typing import Any, cast

import pandas as pd


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Give each row by the names of its columns; the index is left out."""
    return cast(list[dict[str, Any]], table.to_dict("records"))
