"""Every field's extremes, over real gRPC: an answer or a typed refusal, never an error of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.inventory.grpc_api import InventoryApi
from shop.inventory.v1 import inventory_pb2 as pb
from tests.chassis.grpc_rig import INVENTORY, Answer, Issuer, Rig, answer_of, issuing, methods_of, serving
from tests.inventory.conftest import receive

TEXTS = ("", " ", "x" * 100_000, "a\0b", "\N{SNOWMAN}", "'; DROP TABLE stock; --", "%s", "../../etc", "a" * 64, "\t")
NUMBERS = (-(2**63), -1, 0, 1, 2**31 - 1, 2**63 - 1)
# What says that the caller, or the state of things, is the reason.
ANSWERS = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED"}
# One caller that may make each call.
SERVICES = {
    "ReserveStock",
    "ExtendReservation",
    "ShrinkReservation",
    "CommitReservation",
    "ReleaseReservation",
    "ReleaseOrder",
}
PLACE: dict[str, Any] = {"sku": "a", "location": "vienna-1"}
HELD = {"reservation_id": "res_1"}
GOOD: dict[str, dict[str, Any]] = {
    "ReceiveStock": {**PLACE, "quantity": 1},
    "AdjustStock": {**PLACE, "delta": 1, "reason": "x"},
    "CountStock": {**PLACE, "counted": 1, "reason": "x"},
    "WriteOffStock": {**PLACE, "quantity": 1, "reason": "x"},
    "TransferStock": {"sku": "a", "from_location": "vienna-1", "to_location": "brno-1", "quantity": 1},
    "SetSafetyStock": {**PLACE, "units": 1},
    "SetLocationRanks": {"ranks": pb.LocationRanks(country="AT", locations=["vienna-1"])},
    "ListLocationRanks": {},
    "ReturnStock": {"order_id": "ord_1", "lines": [pb.ReturnLine(**PLACE, quantity=1)]},
    "ImportStock": {"document_id": "file:0001", "rows": [pb.StockRow(line=2, **PLACE, quantity="1")]},
    "ReserveStock": {"customer_id": "cus_1", "lines": [pb.ReservationLine(sku="a", quantity=1)]},
    "ExtendReservation": {**HELD, "hold_time": {"seconds": 60}},
    "ShrinkReservation": {**HELD, "lines": [pb.KeptLine(sku="a", quantity=1)]},
    "CommitReservation": {**HELD, "order_id": "ord_1"},
    "ReleaseReservation": HELD,
    "ReleaseOrder": {"order_id": "ord_2"},
    "GetReservation": HELD,
    "BatchGetAvailability": {"skus": ["a"]},
    "ListStockLevels": {},
    "ListLedgerEntries": {"sku": "a"},
    "AuditStock": {},
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as started:
        yield started


@pytest.fixture
async def rig(api: InventoryApi, issuer: Issuer) -> AsyncIterator[Rig]:
    async with serving(issuer, (INVENTORY, api)) as started:
        yield started


def good(name: str) -> Any:
    request = getattr(pb, f"{name}Request")(**GOOD[name])
    if "request_id" in request.DESCRIPTOR.fields_by_name:
        request.request_id = uuid4().hex
    return request


def extremes(name: str) -> Iterator[tuple[str, Message]]:
    """The good request with one field at an extreme, each in its turn; also the fields of its lines."""
    for path, field in _fields(good(name)):
        for value in _values(field):
            request = good(name)
            holder: Any = request
            for step in path:
                holder = getattr(holder, step)
                holder = holder[0] if not isinstance(holder, Message) else holder
            if field.is_repeated:
                del getattr(holder, field.name)[:]
                getattr(holder, field.name).extend(value)
            else:
                setattr(holder, field.name, value)
            yield f"{name}.{'.'.join([*path, field.name])}={str(value)[:40]!r}", request


def _fields(message: Message, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for field in message.DESCRIPTOR.fields:
        inside = getattr(message, field.name)
        if field.message_type is None:
            yield path, field
        elif field.is_repeated:
            yield path, field
            if len(inside):
                yield from _fields(inside[0], (*path, field.name))
        else:
            yield from _fields(inside, (*path, field.name))


def _values(field: Any) -> Iterator[Any]:
    if field.is_repeated:
        yield []
        one: Any = field.message_type._concrete_class() if field.message_type else "a"
        yield [one] * 1001
        if not field.message_type:
            yield from ([text] for text in TEXTS)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield from TEXTS
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        yield from (False, True)
    elif field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM):
        yield from (-(2**31), -1, 0, 1, 2**31 - 1)
    else:
        assert field.cpp_type == FieldDescriptor.CPPTYPE_INT64
        yield from NUMBERS


async def ask(rig: Rig, name: str, request: Message) -> Answer | None:
    """How it is refused; None when it is answered."""
    role = "service" if name in SERVICES else "operator"
    try:
        await rig.raw(f"{INVENTORY}/{name}", request.SerializeToString(), rig.issuer.bearer(role))
    except grpc.aio.AioRpcError as error:
        return answer_of(error)
    return None


def test_every_call_is_tried() -> None:
    assert set(GOOD) == {method.name for method in methods_of(INVENTORY)}


@pytest.mark.parametrize("name", GOOD)
async def test_every_extreme_has_a_typed_answer(api: InventoryApi, rig: Rig, name: str) -> None:
    await receive(api, "a", 5)
    answers = {case: await ask(rig, name, request) for case, request in extremes(name)}
    wrong = {
        case: answer
        for case, answer in answers.items()
        if answer is not None and (answer.code not in ANSWERS or not answer.reason.isupper())
    }
    assert not wrong
    # What is refused as wrong names the field.
    unnamed = [
        case for case, answer in answers.items() if answer and answer.code == "INVALID_ARGUMENT" and not answer.fields
    ]
    assert not unnamed
    assert any(answers.values()), "nothing was refused"


async def test_no_message_at_all_is_malformed(rig: Rig) -> None:
    for name in GOOD:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await rig.raw(
                f"{INVENTORY}/{name}", b"\xff\xff\xff", rig.issuer.bearer("service" if name in SERVICES else "operator")
            )
        assert answer_of(error.value).reason == "MALFORMED_REQUEST"
