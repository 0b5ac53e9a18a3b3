"""Loyalty owns standing: who is a regular, and what we do for them by ourselves."""
