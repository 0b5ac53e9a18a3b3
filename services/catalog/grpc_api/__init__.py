"""Catalog over gRPC: from messages to questions and commands, and back."""

from services.catalog.grpc_api.messages import Shop
from services.catalog.grpc_api.open_lists import OpenLists
from services.catalog.grpc_api.records import CatalogAdminApi
from services.catalog.grpc_api.referrals import ReferralApi
from services.catalog.grpc_api.waiting import BackInStockApi
from services.catalog.grpc_api.window import CatalogApi

__all__ = ["BackInStockApi", "CatalogAdminApi", "CatalogApi", "OpenLists", "ReferralApi", "Shop"]
