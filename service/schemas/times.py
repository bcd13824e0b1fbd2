"""Times in queries: written out in ISO 8601, never a number of seconds."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from pydantic import BeforeValidator

# Numbers are refused: pydantic would take them for seconds since 1970.
Moment = Annotated[
    datetime, BeforeValidator(lambda given: given and datetime.fromisoformat(str(given)))
]
"""Of a query, in ISO 8601."""
Day = Annotated[date, BeforeValidator(lambda given: given and date.fromisoformat(str(given)))]
"""Of a query, in ISO 8601."""
