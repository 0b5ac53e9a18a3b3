"""Passwords and keys of one stack, made once and kept in its state directory."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet

from .ports import SERVICES


@dataclass(frozen=True)
class Secrets:
    database_superuser: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    database_roles: dict[str, str] = field(
        default_factory=lambda: {service: secrets.token_urlsafe(24) for service in SERVICES}
    )
    personal_data_keys: dict[str, str] = field(
        default_factory=lambda: {service: Fernet.generate_key().decode() for service in ("shipping", "contact")}
    )

    @classmethod
    def of(cls, state: Path) -> Secrets:
        """Those of the stack, made now if it has none yet. Readable by its owner only."""
        file = state / "secrets.json"
        if not file.exists():
            # Moved into place whole: a second process never reads half of it.
            draft = file.with_suffix(f".{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(asdict(cls()), indent=2))
            draft.replace(file)
        return cls(**json.loads(file.read_text()))
