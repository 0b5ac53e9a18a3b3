"""Elsewhere over gRPC: what agents know of other shops."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

import asyncpg

from services.catalog.store import referrals
from services.chassis import pages
from services.chassis.access import current_caller
from services.chassis.database import Database, Transaction
from services.chassis.errors import InvalidInput, NotFound
from services.chassis.requests import once
from services.chassis.values import to_timestamp
from shop.catalog.v1 import referrals_pb2 as pb


class ReferralApi:
    """shop.catalog.v1.ReferralService; what each call promises and refuses stands in its proto."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def AddReferral(self, request: pb.AddReferralRequest) -> pb.AddReferralResponse:
        shop_name = " ".join(request.shop_name.split())
        if not shop_name:
            raise InvalidInput([("shop_name", "is blank")])
        await self._subject(request)

        async def run(tx: Transaction) -> pb.AddReferralResponse:
            row = await referrals.add(
                tx.connection,
                f"ref_{uuid4().hex}",
                request.brand.strip(),
                request.product_id,
                shop_name,
                request.uri,
                request.note.strip(),
                current_caller().id,
            )
            return pb.AddReferralResponse(referral=referral_message(row, agent_id=row["agent_id"]))

        return await once(self._database, request, pb.AddReferralResponse, run)

    async def RemoveReferral(self, request: pb.RemoveReferralRequest) -> pb.RemoveReferralResponse:
        async def run(tx: Transaction) -> pb.RemoveReferralResponse:
            await referrals.remove(tx.connection, request.referral_id)
            return pb.RemoveReferralResponse()

        return await once(self._database, request, pb.RemoveReferralResponse, run)

    async def ListReferrals(self, request: pb.ListReferralsRequest) -> pb.ListReferralsResponse:
        brand = await self._subject(request)
        size = pages.size(request.page_size, usual=24, most=100)
        position = pages.position(request, (int, datetime, str))
        after = (position[0], position[1], position[2]) if position else None
        rows = await referrals.page(self._database, request.product_id, brand, after, size)
        last = rows[-1] if len(rows) == size else None
        place = (last["rank"], last["create_time"], last["referral_id"]) if last else None
        return pb.ListReferralsResponse(
            referrals=[referral_message(row, agent_id=row["agent_id"]) for row in rows],
            next_page_token=pages.token(request, place) if place else "",
        )

    async def _subject(self, request: pb.AddReferralRequest | pb.ListReferralsRequest) -> str:
        """The brand it is about, be it that of a product. Raises `InvalidInput`, and `NotFound` for a product."""
        brand = request.brand.strip()
        if bool(brand) == bool(request.product_id):
            raise InvalidInput(
                [(field, "exactly one of brand and product_id is needed") for field in ("brand", "product_id")],
                reason="BRAND_OR_PRODUCT",
            )
        if brand:
            return brand
        found = await referrals.brand_of(self._database, request.product_id)
        if found is None:
            raise NotFound("there is no such product", product_id=request.product_id)
        return found


def referral_message(row: asyncpg.Record, agent_id: str = "") -> pb.Referral:
    """Another shop; who found it is for our own people only."""
    return pb.Referral(
        referral_id=row["referral_id"],
        brand=row["brand"],
        product_id=row["product_id"],
        shop_name=row["shop_name"],
        uri=row["uri"],
        note=row["note"],
        create_time=to_timestamp(row["create_time"]),
        agent_id=agent_id,
    )
