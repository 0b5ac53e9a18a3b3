"""Whom shipping calls while somebody waits."""

from __future__ import annotations

from typing import Protocol

from services.chassis.grpc_client import Peer
from shop.catalog.v1 import records_pb2 as catalog
from shop.catalog.v1 import records_pb2_grpc as catalog_rpc
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.inventory.v1 import inventory_pb2_grpc as inventory_rpc

CALLS = ("inventory", "catalog")


class Inventory(Protocol):
    """Holds and commits stock. Raises the refusals inventory raises, and `Unavailable` while it is away."""

    async def ReserveStock(self, request: inventory.ReserveStockRequest) -> inventory.ReserveStockResponse:
        """Holds units: all lines or none."""

    async def GetReservation(self, request: inventory.GetReservationRequest) -> inventory.GetReservationResponse:
        """A reservation as it is now."""

    async def CommitReservation(
        self, request: inventory.CommitReservationRequest
    ) -> inventory.CommitReservationResponse:
        """Promises held units to an order. Idempotent by order."""

    async def ReleaseReservation(
        self, request: inventory.ReleaseReservationRequest
    ) -> inventory.ReleaseReservationResponse:
        """Gives a hold back."""

    async def ReleaseOrder(self, request: inventory.ReleaseOrderRequest) -> inventory.ReleaseOrderResponse:
        """Gives back what an order holds, and refuses any later commit for it."""


class Catalog(Protocol):
    """Knows what is sold, and for how much."""

    async def BatchGetVariants(self, request: catalog.BatchGetVariantsRequest) -> catalog.BatchGetVariantsResponse:
        """The variants among these SKUs that catalog knows."""


class InventoryClient:
    """Inventory over gRPC."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub: inventory_rpc.InventoryServiceAsyncStub = inventory_rpc.InventoryServiceStub(peer.channel)

    async def ReserveStock(self, request: inventory.ReserveStockRequest) -> inventory.ReserveStockResponse:
        return await self._peer.call(self._stub.ReserveStock, request)

    async def GetReservation(self, request: inventory.GetReservationRequest) -> inventory.GetReservationResponse:
        return await self._peer.call(self._stub.GetReservation, request)

    async def CommitReservation(
        self, request: inventory.CommitReservationRequest
    ) -> inventory.CommitReservationResponse:
        return await self._peer.call(self._stub.CommitReservation, request)

    async def ReleaseReservation(
        self, request: inventory.ReleaseReservationRequest
    ) -> inventory.ReleaseReservationResponse:
        return await self._peer.call(self._stub.ReleaseReservation, request)

    async def ReleaseOrder(self, request: inventory.ReleaseOrderRequest) -> inventory.ReleaseOrderResponse:
        return await self._peer.call(self._stub.ReleaseOrder, request)


class CatalogClient:
    """Catalog over gRPC."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub: catalog_rpc.CatalogAdminServiceAsyncStub = catalog_rpc.CatalogAdminServiceStub(peer.channel)

    async def BatchGetVariants(self, request: catalog.BatchGetVariantsRequest) -> catalog.BatchGetVariantsResponse:
        return await self._peer.call(self._stub.BatchGetVariants, request)
