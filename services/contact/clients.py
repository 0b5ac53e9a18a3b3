"""Whom contact calls while somebody waits: nobody yet."""

from __future__ import annotations

CALLS: tuple[str, ...] = ()
