"""Inventory owns stock: what lies where, what of it is promised, and every movement that made it so."""
