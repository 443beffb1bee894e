from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from streams.core.events import EventType, Item, User
from streams.sources import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from streams.sources import Source

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is missing; install nearstream[logs]")
parquet = pytest.importorskip("pyarrow.parquet")

COLUMNS = (
    "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country",
)  # fmt: skip
SOLD = ("536365", "85123A", " HEART ", 6, datetime(2010, 12, 1, 8, 26), 2.55, 17850.0, "France")  # noqa: DTZ001
SOLD_MS = 1_291_191_960_000


def line(**changes: Any) -> tuple[Any, ...]:
    return tuple({**dict(zip(COLUMNS, SOLD, strict=True)), **changes}.values())


def shop(tmp_path: Path, *lines: tuple[Any, ...]) -> Source:
    columns = dict(zip(COLUMNS, map(list, zip(*lines, strict=True)), strict=True))
    path = tmp_path / "online_retail.parquet"
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return open_source("online-retail", str(tmp_path))


def test_a_line_is_a_purchase_of_what_it_costs(tmp_path: Path) -> None:
    """Customer, stock code, time, amount and invoice of a line become one event."""
    [event] = shop(tmp_path, SOLD).events()
    assert (event.user_id, event.item_id, event.type, event.timestamp, event.value, event.session_id) == (
        "17850", "85123A", EventType.PURCHASE, SOLD_MS, 15.3, "536365",
    )  # fmt: skip


@pytest.mark.parametrize("changes", [{"Quantity": -6}, {"InvoiceNo": "C536365"}])
def test_a_cancellation_removes_the_same_amount(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A negative quantity and an invoice with a C both take back; the value stays positive."""
    [event] = shop(tmp_path, line(**changes)).events()
    assert (event.type, event.value) == (EventType.REMOVE, 15.3)


def test_lines_without_customer_are_counted_and_left_out(tmp_path: Path) -> None:
    """Nobody's purchases reach no profile, and the first of them is told with its line."""
    source = shop(tmp_path, SOLD, line(CustomerID=None), line(CustomerID=float("nan")), line(CustomerID=1.0))
    assert [event.user_id for event in source.events()] == ["17850", "1"]
    assert source.skips.counts == {"no-customer": 2}
    assert "line 2: no-customer" in source.skips.examples[0]
    assert source.describe().events == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Quantity": 0}, "invalid-schema"),
        ({"StockCode": None}, "invalid-schema"),
        ({"InvoiceDate": None}, "invalid-schema"),
        ({"UnitPrice": None}, "invalid-schema"),
        ({"UnitPrice": float("nan")}, "not-finite"),
    ],
)
def test_a_line_that_is_no_sale_is_counted(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """Absent fields, nothing sold and a price that is no number cost only their line."""
    source = shop(tmp_path, line(**changes), SOLD)
    assert [event.value for event in source.events()] == [15.3]
    assert source.skips.counts == {reason: 1}


def test_a_repeated_line_is_the_same_event(tmp_path: Path) -> None:
    """Equal lines share an event id; a line that differs in one cell does not."""
    first, second, third = shop(tmp_path, SOLD, SOLD, line(Quantity=7)).events()
    assert first.event_id == second.event_id != third.event_id


def test_items_are_described_by_their_first_sale(tmp_path: Path) -> None:
    """Corrections and gifts describe nothing; postage is no goods and never recommended."""
    source = shop(
        tmp_path,
        line(Description="damaged", Quantity=-1),
        line(Description="gift", UnitPrice=0.0),
        line(Description=None),
        SOLD,
        line(Description="LATER"),
        line(StockCode="POST", Description="POSTAGE", UnitPrice=18.0),
    )
    assert list(source.items()) == [
        Item("85123A", title="HEART", price=2.55),
        Item("POST", title="POSTAGE", price=18.0, available=False),
    ]


def test_users_have_the_country_of_their_first_invoice(tmp_path: Path) -> None:
    """Each customer once; lines without one make no user."""
    source = shop(tmp_path, SOLD, line(Country="Spain"), line(CustomerID=None), line(CustomerID=2.0))
    assert list(source.users()) == [User("17850", country="France"), User("2", country="France")]
