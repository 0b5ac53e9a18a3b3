"""Catalog's tables, inside a transaction.

Locks are taken in one order: customer, feed lock, stock copy and what was received (by SKU and location, as "C" sorts
them), products, variants, subscriptions.
"""
