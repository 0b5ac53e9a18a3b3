"""What is shown before an order, and what shipping must be told before it starts."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError

from services.shipping.domain.terms import HIGHLIGHTS, VERSION
from services.shipping.settings import Settings

# An order names the version that was shown: its texts never change, new texts are a new version.
TEXTS = {"2026-1": "57b1"}


def settings(**changed: Any) -> Settings:
    return Settings.model_validate(
        {
            "database_url": "postgresql://unused",
            "kafka_bootstrap_servers": "unused",
            "grpc_port": 1,
            "metrics_port": 1,
            "token_issuer": "unused",
            "jwks_url": "http://unused",
            "service_token_file": "unused",
            "inventory_address": "unused",
            "catalog_address": "unused",
            "personal_data_keys": Fernet.generate_key().decode(),
            **changed,
        }
    )


def test_new_texts_are_a_new_version() -> None:
    digest = hashlib.sha256(repr([(shown.code, shown.text) for shown in HIGHLIGHTS]).encode()).hexdigest()
    assert TEXTS[VERSION] == digest[:4], "the texts changed: give them a new VERSION, and add it here"


def test_several_keys_newest_first() -> None:
    keys = ",".join(Fernet.generate_key().decode() for _ in range(2))
    assert settings(personal_data_keys=keys).personal_data_keys.get_secret_value() == keys


@pytest.mark.parametrize("keys", ["", "too-short", Fernet.generate_key().decode() + ",nonsense"])
def test_a_wrong_key_is_refused_and_not_repeated(keys: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(personal_data_keys=keys)
    (problem,) = refused.value.errors()
    assert problem["loc"] == ("personal_data_keys",)
    assert not keys or keys not in problem["msg"]


def test_keys_are_not_shown() -> None:
    shown = settings()
    assert shown.personal_data_keys.get_secret_value() not in repr(shown)
