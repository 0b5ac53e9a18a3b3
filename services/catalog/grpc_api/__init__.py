"""Catalog over gRPC: from messages to questions and commands, and back."""

from services.catalog.grpc_api.window import CatalogAdminApi, CatalogApi

__all__ = ["CatalogAdminApi", "CatalogApi"]
