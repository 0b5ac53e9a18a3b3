"""Catalog's tables, inside a transaction.

Locks are taken in one order: feed lock, stock copy (by SKU and location, as "C" sorts them), products, variants.
"""
