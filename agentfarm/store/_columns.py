"""Turn records into the columns of a pandas frame."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

_TIMES = frozenset({"started_at", "finished_at", "timestamp"})


def records_frame(records: Sequence[Any], kind: type[Any]) -> pd.DataFrame:
    """One row per record and one column per field of `kind`; times as UTC."""
    import pandas as pd

    return pd.DataFrame(
        {
            field.name: column(
                [getattr(record, field.name) for record in records],
                "time" if field.name in _TIMES else str(field.type),
            )
            for field in dataclasses.fields(kind)
        }
    )


def column(values: list[Any], kind: str) -> pd.Series[Any]:
    """A column by a field's annotation; its type does not depend on the values."""
    import pandas as pd

    if kind == "time":
        seconds = pd.Series(values, dtype="float64")
        times = pd.to_datetime(seconds, unit="s", utc=True)
        return times.astype("datetime64[ns, UTC]")
    dtypes: dict[str, Any] = {
        "int": "int64",
        "int | None": "Int64",
        "float": "float64",
        "float | None": "float64",
        "bool": "bool",
    }
    # Texts stay objects, so that an unknown one is None in every pandas.
    column: pd.Series[Any] = pd.Series(values, dtype=dtypes.get(kind, "object"))
    return column
