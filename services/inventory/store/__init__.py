"""Inventory's tables, inside a transaction."""
