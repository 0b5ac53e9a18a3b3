"""Who tells what, who hears it and who calls whom: as designed, and as declared in the code."""

from __future__ import annotations

from collections import Counter

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from deploy import map as shop_map
from deploy.cluster import topology as deployed
from shop.access.v1 import access_pb2
from shop.catalog.v1 import back_in_stock_pb2, catalog_pb2, records_pb2, referrals_pb2
from shop.contact.v1 import contact_pb2
from shop.inventory.v1 import inventory_pb2
from shop.loyalty.v1 import loyalty_pb2
from shop.shipping.v1 import shipping_pb2

DECLARED = [shop_map.declared(service) for service in shop_map.SERVICES]

# The design: topic -> (told by, heard by). What is heard beyond this needs a line here first.
TOPICS = {
    "shop.inventory.stock.v1": ("inventory", {"catalog"}),
    "shop.inventory.reservations.v1": ("inventory", {"catalog", "shipping"}),
    "shop.catalog.products.v1": ("catalog", {"contact"}),
    "shop.shipping.orders.v1": ("shipping", {"inventory", "catalog", "loyalty", "contact"}),
    "shop.shipping.shipments.v1": ("shipping", {"inventory", "loyalty", "contact"}),
    "shop.loyalty.upgrades.v1": ("loyalty", {"shipping", "contact"}),
    "shop.loyalty.standing.v1": ("loyalty", {"contact"}),
    "shop.contact.interactions.v1": ("contact", set()),
    "shop.contact.hotline.v1": ("contact", {"catalog", "shipping", "loyalty"}),
    "shop.contact.privacy.v1": ("contact", {"catalog"}),
}
COMPACTED = {
    "shop.inventory.stock.v1",
    "shop.loyalty.standing.v1",
    "shop.contact.hotline.v1",
    "shop.contact.privacy.v1",
}
CALLS = {
    "inventory": set(),
    "catalog": {"inventory"},
    "shipping": {"inventory", "catalog"},
    "loyalty": set(),
    "contact": set(),
}
PROTOS = (
    inventory_pb2,
    catalog_pb2,
    back_in_stock_pb2,
    records_pb2,
    referrals_pb2,
    shipping_pb2,
    loyalty_pb2,
    contact_pb2,
)


def rpcs() -> list[MethodDescriptor]:
    return [
        method
        for proto in PROTOS
        for service in proto.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def test_every_topic_is_told_by_the_service_that_owns_it() -> None:
    told = {topic.name: service.name for service in DECLARED for topic in service.publishes}
    assert told == {name: owner for name, (owner, _) in TOPICS.items()}
    assert Counter(topic.name for service in DECLARED for topic in service.publishes).most_common(1)[0][1] == 1


def test_compaction_is_as_designed() -> None:
    assert {topic.name for service in DECLARED for topic in service.publishes if topic.compacted} == COMPACTED


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_is_heard_as_designed(topic: str) -> None:
    heard_by = {service.name for service in DECLARED for line in service.hears if line.topic == topic}
    assert heard_by == TOPICS[topic][1]


def test_nobody_hears_a_fact_that_is_not_told() -> None:
    told = {topic.name: set(topic.facts) for service in DECLARED for topic in service.publishes}
    for service in DECLARED:
        for line in service.hears:
            assert {*line.handlers, *line.batch_facts} <= told[line.topic], (service.name, line.topic)


def test_a_topic_is_heard_by_one_line_of_a_service() -> None:
    for service in DECLARED:
        topics = [line.topic for line in service.hears]
        assert len(topics) == len(set(topics)), service.name


def test_facts_say_their_service_and_version() -> None:
    for service in DECLARED:
        for topic in service.publishes:
            for fact in topic.facts:
                assert fact.DESCRIPTOR.full_name.startswith(f"shop.{service.name}.events.v1.")
                # A watermark never goes back, and whoever is forgotten stays so.
                if fact.DESCRIPTOR.name not in ("StockWatermark", "CustomerForgotten"):
                    assert "version" in fact.DESCRIPTOR.fields_by_name, fact.DESCRIPTOR.full_name


def test_facts_carry_no_personal_data() -> None:
    personal = {"name", "street", "postal_code", "city", "address", "phone", "email", "text", "note"}
    for service in DECLARED:
        for topic in service.publishes:
            for fact in topic.facts:
                assert not personal & set(fact.DESCRIPTOR.fields_by_name), fact.DESCRIPTOR.full_name


def test_who_calls_whom_is_as_designed_and_allowed() -> None:
    assert {service.name: set(service.calls) for service in DECLARED} == CALLS
    admitted: dict[str, set[str]] = {}
    for method in rpcs():
        owner = method.full_name.split(".")[1]
        for caller in method.GetOptions().Extensions[access_pb2.policy].services:
            admitted.setdefault(caller, set()).add(owner)
    for service, called in CALLS.items():
        assert admitted.get(service, set()) == called, service
    assert {service: set(called) for service, called in deployed.CALLS.items()} == CALLS


def test_every_rpc_says_who_may_call() -> None:
    for method in rpcs():
        policy = method.GetOptions().Extensions[access_pb2.policy]
        assert policy.allow, method.full_name
        assert bool(policy.services) == (access_pb2.ROLE_SERVICE in policy.allow), method.full_name


def test_every_storefront_answer_says_how_to_reach_a_human() -> None:
    for method in rpcs():
        allow = set(method.GetOptions().Extensions[access_pb2.policy].allow)
        if allow & {access_pb2.ROLE_VISITOR, access_pb2.ROLE_CUSTOMER}:
            field = method.output_type.fields_by_name.get("contact_options")
            assert field is not None, method.full_name
            assert field.message_type is not None, method.full_name
            assert field.message_type.full_name == "shop.contact.v1.ContactOptions"


def test_browsers_can_make_every_storefront_call() -> None:
    for method in rpcs():
        assert not method.client_streaming, method.full_name


def test_mutations_carry_a_request_id() -> None:
    reads = ("Get", "List", "Suggest", "BatchGet", "Watch", "Quote", "Explain", "Audit", "Export")
    # Idempotent by what they say: an import by its rows, a heartbeat by being one, a scan by the carrier's own id.
    by_content = {"ImportStock", "ImportProducts", "SendHeartbeat", "RecordScan"}
    for method in rpcs():
        if not method.name.startswith(reads) and method.name not in by_content:
            assert "request_id" in method.input_type.fields_by_name, method.full_name


def test_the_map_in_the_readme_is_fresh() -> None:
    readme = shop_map.README.read_text()
    assert shop_map.placed(readme, shop_map.drawn(DECLARED)) == readme, "run `make map`"


def test_no_proto_was_left_out() -> None:
    found = descriptor_pool.Default()
    for proto in PROTOS:
        assert found.FindFileByName(proto.DESCRIPTOR.name)
