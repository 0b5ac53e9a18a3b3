"""Catalog owns the shop window: what a storefront shows, and only what can be shipped now."""
