"""Reserve stock: spread over many SKUs, and one hot SKU, and commit what was reserved, against bare transactions that
write the same rows. And the availability of 500 SKUs in one call."""

from __future__ import annotations

from collections.abc import Sequence

from shop.inventory.v1 import inventory_pb2 as inventory

from .figures import Ratio, Row, by_rate, by_server_and_database_cpu, paired
from .load import Load, answers, send
from .replay import replay
from .rounds import Bench, Contestant, measure
from .rulers.process import Ruler
from .rulers.transactions import BareTransactions
from .shop import LOCATION, new_id

CALLERS = 64
# More than can be served: a round ends by time.
REQUESTS_PER_SECOND = 4000
COMMITS_PER_SECOND = 400


def reserve(bench: Bench) -> list[Row]:
    shop = bench.shop
    skus = shop.plenty
    # Whoever hears of the reservations would take the same two cores.
    shop.only("inventory")
    shop.copy_database("inventory")
    reserving = shop.as_shipping("ReserveStock")
    recording = shop.recorded(lambda: shop.ask(reserving, _requests(skus, 1)[0]), "inventory")["inventory"]
    load = Load(CALLERS, seconds=bench.seconds)

    def ours(skus: Sequence[str]) -> Contestant:
        requests = int(bench.seconds * REQUESTS_PER_SECOND)
        return lambda _: shop.measured(["inventory"], lambda: send(reserving, _requests(skus, requests), load))

    def bare(ruler: Ruler, span: int) -> Contestant:
        # Numbers that no other round, and no other ruler, uses.
        return lambda number: shop.measured(
            [ruler.pid],
            lambda: ruler.run("run", first=span + (number + 1) * 100_000, callers=CALLERS, seconds=bench.seconds),
        )

    def given(skus: Sequence[str]) -> BareTransactions:
        places = [(sku, LOCATION) for sku in skus]
        return BareTransactions(shop.copy_url("inventory"), replay(recording, places))

    with Ruler("transactions", given(skus)) as spread, Ruler("transactions", given(skus[:1])) as hot:
        measured = measure(
            bench,
            {
                "reserve, spread": ours(skus),
                "bare transactions": bare(spread, 0),
                "reserve, one hot SKU": ours(skus[:1]),
                "bare transactions, one hot row": bare(hot, 100_000_000),
            },
        )
    ours_spread, bare_spread, ours_hot, bare_hot = measured
    return [
        Row(
            "reserve, spread over SKUs",
            (ours_spread, bare_spread),
            [
                Ratio("calls per second", paired(ours_spread, bare_spread, by_rate), at_least=0.6),
                Ratio(
                    "server and PostgreSQL CPU per call", paired(ours_spread, bare_spread, by_server_and_database_cpu)
                ),
            ],
            f"{CALLERS} callers, {len(skus)} SKUs; {recording.text()}",
        ),
        Row(
            "reserve, one hot SKU",
            (ours_hot, bare_hot),
            [
                Ratio("calls per second", paired(ours_hot, bare_hot, by_rate)),
                Ratio("hot to spread, calls per second", paired(ours_hot, ours_spread, by_rate), at_least=0.5),
            ],
            f"{CALLERS} callers, 1 SKU",
        ),
    ]


def commit(bench: Bench) -> list[Row]:
    """A round's holds are made before it, one for each call: it goes by calls, not by time."""
    shop = bench.shop
    shop.only("inventory")
    calls = int(bench.seconds * COMMITS_PER_SECOND)
    reserving, committing = shop.as_shipping("ReserveStock"), shop.as_shipping("CommitReservation")

    def held(number: int) -> list[inventory.CommitReservationRequest]:
        return [_commitment(each) for each in answers(reserving, _requests(shop.plenty, number), Load(CALLERS))]

    made: list[bytes] = []
    first = _requests(shop.plenty, 1)[0]
    reserved = shop.recorded(lambda: made.append(shop.ask(reserving, first)), "inventory")["inventory"]
    shop.copy_database("inventory")
    one = _commitment(made[0])
    recording = shop.recorded(lambda: shop.ask(committing, one), "inventory")["inventory"]
    places = [(sku, LOCATION) for sku in shop.plenty]
    given = BareTransactions(
        shop.copy_url("inventory"),
        replay(recording, places),
        before=((shop.copy_url("inventory"), replay(reserved, places)),),
    )
    prepared = held(calls * (bench.rounds + 1))
    with Ruler("transactions", given) as bare:
        for number in range(-1, bench.rounds):
            bare.ask("prepare", first=(number + 1) * calls, calls=calls)
        ours, ruler = measure(
            bench,
            {
                "commit": lambda number: shop.measured(
                    ["inventory"],
                    lambda: send(committing, prepared[(number + 1) * calls : (number + 2) * calls], Load(CALLERS)),
                ),
                "bare transactions": lambda number: shop.measured(
                    [bare.pid],
                    lambda: bare.run("run", first=(number + 1) * calls, callers=CALLERS, calls=calls),
                ),
            },
        )
    return [
        Row(
            "commit, spread over SKUs",
            (ours, ruler),
            [
                Ratio("calls per second", paired(ours, ruler, by_rate), at_least=0.6),
                Ratio("server and PostgreSQL CPU per call", paired(ours, ruler, by_server_and_database_cpu)),
            ],
            f"{CALLERS} callers; {recording.text()}",
        )
    ]


def availability(bench: Bench) -> list[Row]:
    """One caller: how long one answer takes, not how many there can be."""
    shop = bench.shop
    shop.only("inventory")
    target = shop.as_shipping("BatchGetAvailability")
    request = inventory.BatchGetAvailabilityRequest(skus=shop.plenty[:500])
    load = Load(callers=1, connections=1, seconds=bench.seconds, again=True)
    (ours,) = measure(
        bench, {"availability": lambda _: shop.measured(["inventory"], lambda: send(target, [request], load))}
    )
    return [
        Row(
            "availability of 500 SKUs in one call",
            (ours,),
            [Ratio("ms: p99", ours.milliseconds(99), at_most=15)],
            "1 caller",
        )
    ]


def _commitment(held: bytes) -> inventory.CommitReservationRequest:
    """Commits a hold to an order of its own."""
    reservation_id = inventory.ReserveStockResponse.FromString(held).reservation.reservation_id
    return inventory.CommitReservationRequest(
        request_id=new_id("req"), reservation_id=reservation_id, order_id=new_id("ord")
    )


def _requests(skus: Sequence[str], number: int) -> list[inventory.ReserveStockRequest]:
    """One unit each, for a new customer each: no limit on open holds is met."""
    return [
        inventory.ReserveStockRequest(
            request_id=new_id("req"),
            customer_id=new_id("cus"),
            lines=[inventory.ReservationLine(sku=skus[each % len(skus)], quantity=1)],
        )
        for each in range(number)
    ]
