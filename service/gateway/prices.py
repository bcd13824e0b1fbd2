"""What tokens cost: whole billionths of a unit of the currency, never floats."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from infra.errors import InvalidRequest
from infra.gateway_settings import Price

logger = logging.getLogger(__name__)

NANOS = 10**9
"""Billionths in one unit of the currency; amounts of money are whole numbers of them."""
MILLION = 10**6
MAX_UNITS = 9 * 10**9
"""The largest amount: what fits a database's integer, in billionths."""
MAX_WARNED = 1000


class Prices:
    """The price of every model, as the settings have it."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = {
            model: (
                _per_million(price.input_per_million),
                _per_million(price.output_per_million),
            )
            for model, price in prices.items()
        }
        self._warned: set[str] = set()

    def cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> int:
        """Return what tokens cost, rounded up to the billionth; 0 for a model without a price."""
        price = self._prices.get(model)
        if price is None:
            self._warn(model)
            return 0
        return -(-(prompt_tokens * price[0] + completion_tokens * price[1]) // MILLION)

    def _warn(self, model: str) -> None:
        # Where nothing has a price, nothing was forgotten.
        if self._prices and model not in self._warned and len(self._warned) < MAX_WARNED:
            self._warned.add(model)
            logger.warning(
                "the model %r has no price in gateway.prices: it is taken to cost nothing", model
            )


def parse_amount(text: str, *, parameter: str = "amount") -> int:
    """Return an amount of money such as `12.50` in billionths.

    Raises:
        InvalidRequest: it is no number, negative, too large, or finer than a billionth.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    is_amount = amount.is_finite() and 0 <= amount <= MAX_UNITS
    nanos = amount * NANOS if is_amount else Decimal(0)
    if not is_amount or nanos != int(nanos):
        raise InvalidRequest(
            f"{text[:80]!r} is no amount of money; a number such as 12.50 is, "
            f"from 0 to {MAX_UNITS:,} with at most 9 decimals",
            parameter=parameter,
        )
    return int(nanos)


def format_amount(nanos: int) -> str:
    """Return an amount in units of the currency, exactly: at least two decimals, at most nine."""
    sign = "-" if nanos < 0 else ""
    units, rest = divmod(abs(nanos), NANOS)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{units}.{decimals}"


def _per_million(price: float) -> int:
    # By way of its shortest text: 0.15 means fifteen hundredths, not the binary next to it.
    return int((Decimal(repr(price)) * NANOS).to_integral_value())
