"""Place order, three lines, end to end: against bare transactions that write the same rows, and a bare call between.

The ruler: the first transaction of shipping; a bare call to a bare server, which writes inventory's transaction and
returns the bytes of its answer; the other transactions of shipping. Two processes, as ours are.
"""

from __future__ import annotations

from shop.inventory.v1 import inventory_pb2 as inventory

from .checkouts import Checkouts
from .figures import Ratio, Row, by_rate, by_server_and_database_cpu, paired
from .load import Load, send
from .recording import Recording
from .replay import replay
from .rounds import Bench, measure
from .rulers.calls import BareServer
from .rulers.process import Ruler
from .rulers.transactions import BareTransactions
from .shop import LOCATION, Shop

CALLERS = 16
# A round's checkouts are begun before it: it goes by calls, not by time.
CALLS_PER_SECOND = 100
COMMIT = "shop.inventory.v1.InventoryService/CommitReservation"


def place_order(bench: Bench) -> list[Row]:
    shop = bench.shop
    shop.all()
    checkouts = Checkouts(shop)
    calls = int(bench.seconds * CALLS_PER_SECOND)
    # Catalog is asked for the prices now; after that whoever hears of orders would take the same two cores.
    prepared = checkouts.begun(calls * (bench.rounds + 1))
    answer: list[bytes] = []
    began = shop.recorded(
        lambda: answer.append(shop.ask(checkouts.method("BeginCheckout"), checkouts.beginnings(1)[0])),
        "shipping",
        "inventory",
    )
    shop.only("inventory", "shipping")
    shop.copy_database("inventory", "shipping")
    order = checkouts.order_of(answer[0])
    placed = shop.recorded(lambda: shop.ask(checkouts.method("PlaceOrder"), order), "shipping", "inventory")
    place = checkouts.method("PlaceOrder")
    places = [(sku, LOCATION) for sku in shop.plenty]

    inventory_url, shipping_url = shop.copy_url("inventory"), shop.copy_url("shipping")
    body = _answer_of_commit(shop, placed["inventory"])
    committing = BareServer({COMMIT: body}, replay(placed["inventory"], places), inventory_url)
    with Ruler("calls", committing) as server:
        given = BareTransactions(
            shipping_url,
            replay(placed["shipping"]),
            call=(server.ready["address"], COMMIT),
            before=(
                (shipping_url, replay(began["shipping"])),
                (inventory_url, replay(began["inventory"], places)),
            ),
        )
        with Ruler("transactions", given) as driver:
            for number in range(-1, bench.rounds):
                driver.ask("prepare", first=(number + 1) * calls, calls=calls)
            ours, ruler = measure(
                bench,
                {
                    "place order": lambda number: shop.measured(
                        ["shipping", "inventory"],
                        lambda: send(place, prepared[(number + 1) * calls : (number + 2) * calls], Load(CALLERS)),
                    ),
                    "bare transactions and calls": lambda number: shop.measured(
                        [driver.pid, server.pid],
                        lambda: driver.run("run", first=(number + 1) * calls, callers=CALLERS, calls=calls),
                    ),
                },
            )
    rows = "; ".join(f"{service} {recording.text()}" for service, recording in placed.items())
    return [
        Row(
            "place order, three lines",
            (ours, ruler),
            [
                Ratio("calls per second", paired(ours, ruler, by_rate), at_least=0.6),
                Ratio("server and PostgreSQL CPU per call", paired(ours, ruler, by_server_and_database_cpu)),
            ],
            f"{CALLERS} callers; server: both services; rows: {rows}",
        )
    ]


def _answer_of_commit(shop: Shop, committed: Recording) -> bytes:
    """What inventory answered shipping."""
    rows = [change.after for change in committed.transactions[0] if change.table == "reservations" and change.after]
    reading = inventory.GetReservationRequest(reservation_id=rows[0]["reservation_id"])
    answer = inventory.GetReservationResponse.FromString(shop.ask(shop.as_shipping("GetReservation"), reading))
    return inventory.CommitReservationResponse(reservation=answer.reservation).SerializeToString()
