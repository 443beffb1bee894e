"""UCI's Online Retail: the invoices of a gift shop, line by line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from streams.core.errors import RejectedRecord, RejectReason
from streams.core.events import Event, EventType, Item, User
from streams.sources.files import find_file
from streams.sources.layout import checked_id, row_id
from streams.sources.ordering import by_time, noting_disorder
from streams.sources.parquet import count_rows, read_rows
from streams.sources.port import Description, Skips

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.sources.parquet import Cells

FILES = ("online_retail_2010_2011.parquet", "online_retail.parquet", "Online Retail.parquet")
LINE_COLUMNS = (
    "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country",
)  # fmt: skip
CANCELLED = "C"
"""First letter of the invoice that takes goods back."""
NO_CUSTOMER = "no-customer"
NOT_GOODS = frozenset({"AMAZONFEE", "B", "BANK CHARGES", "C2", "CRUK", "D", "DOT", "M", "PADS", "POST", "S", "m"})
"""Stock codes of postage, fees, discounts and corrections. They stay events, but are never recommended."""


class OnlineRetail:
    """`online_retail_2010_2011.parquet`: each line of an invoice is a `purchase`, of a cancellation a `remove`.

    `value` is quantity times unit price, never negative: what the line moved, in pounds. The session is the
    invoice. Lines without a customer are left out and counted as `no-customer`. An item is described by its
    first sale; a user's country is the first one invoiced. Times are the shop's, taken as UTC.
    """

    def __init__(self, path: str) -> None:
        self.name = "online-retail"
        self.skips = Skips()
        self._path = find_file(path, FILES)

    def describe(self) -> Description:
        """Lines, those that will be left out included."""
        return Description(events=count_rows(self._path))

    def items(self) -> Iterator[Item]:
        """What was sold at a price, also to unknown customers; memory grows with the items."""
        seen: set[str] = set()
        columns = ("StockCode", "Description", "Quantity", "UnitPrice")
        for _, (code, description, quantity, price) in read_rows(self._path, columns):
            if code in seen or not description or not (quantity > 0 and price > 0):
                continue
            seen.add(code)
            yield Item(item_id=code, title=description.strip(), price=price, available=code not in NOT_GOODS)

    def users(self) -> Iterator[User]:
        """Customers with their country; memory grows with the users."""
        seen: set[str] = set()
        for _, (number, country) in read_rows(self._path, ("CustomerID", "Country")):
            customer = _customer(number)
            if customer is None or customer in seen:
                continue
            seen.add(customer)
            yield User(user_id=customer, country=country)

    def events(self) -> Iterator[Event]:
        """Purchases and returns, oldest first."""
        return by_time(noting_disorder(self._lines_as_events(), self.skips))

    def _lines_as_events(self) -> Iterator[Event]:
        for number, line in read_rows(self._path, LINE_COLUMNS):
            customer = _customer(line[6])
            if customer is None:
                self.skips.leave_out(self._path, number, NO_CUSTOMER, f"invoice {line[0]} names no customer")
                continue
            try:
                yield _event(line, customer)
            except RejectedRecord as rejected:
                self.skips.add(self._path, number, rejected)


def _customer(number: Any) -> str | None:
    """The customer as written in the shop: pandas made the whole numbers floats, and absent ones None or NaN."""
    if number is None or (isinstance(number, float) and not math.isfinite(number)):
        return None
    return str(int(number)) if isinstance(number, float) else str(number)


def _event(line: Cells, customer: str) -> Event:
    invoice, code, _, quantity, time_ms, price, _, _ = line
    if not quantity or time_ms is None or price is None:
        raise RejectedRecord(
            RejectReason.INVALID_SCHEMA, f"quantity {quantity}, price {price} and time {time_ms} cannot be a sale"
        )
    if not math.isfinite(price):
        raise RejectedRecord(RejectReason.NOT_FINITE, f"price {price} is not finite")
    cancelled = quantity < 0 or str(invoice).startswith(CANCELLED)
    return Event(
        user_id=checked_id(customer, "user"),
        item_id=checked_id(str(code or ""), "item"),
        type=EventType.REMOVE if cancelled else EventType.PURCHASE,
        timestamp=time_ms,
        event_id=row_id([str(cell) for cell in line]),
        value=round(abs(quantity * price), 2),
        session_id=str(invoice),
    )
