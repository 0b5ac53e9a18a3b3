"""Checks of requests against the rules written in their protos (protovalidate)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from protovalidate import Validator

from services.chassis.errors import InvalidInput

_validator = Validator()


def checker(message: type[Message]) -> Callable[[Message], None] | None:
    """What checks messages of this type, raising `InvalidInput` with each wrong field; None where there is no rule.

    Raises protovalidate's CompilationError when the rules themselves are wrong.
    """
    if not _has_rules(message.DESCRIPTOR, set()):
        return None
    _validator.collect_violations(message())  # Compiles the rules now instead of in the first call.
    return _check


def _check(message: Message) -> None:
    violations = _validator.collect_violations(message)
    if violations:
        found = [violation.proto for violation in violations]
        raise InvalidInput([(_path(violation.field), violation.message or violation.rule_id) for violation in found])


def _path(field: Any) -> str:
    """`lines[2].sku`, as google.rpc.BadRequest wants it. Keys of maps are data and are left out."""
    parts = []
    for element in field.elements if field is not None else ():
        subscript = element.subscript
        index = f"[{subscript.value}]" if subscript is not None and subscript.field == "index" else ""
        parts.append(f"{element.field_name}{index}")
    return ".".join(parts)


def _has_rules(message: Any, seen: set[str]) -> bool:
    """Whether the message, or one inside it, has a rule. Takes and looks at descriptors."""
    if message.full_name in seen:
        return False
    seen.add(message.full_name)
    return any(_is_ruled(element) for element in (message, *message.oneofs, *message.fields)) or any(
        field.message_type is not None and _has_rules(field.message_type, seen) for field in message.fields
    )


def _is_ruled(element: Any) -> bool:
    # By name: the rules are extensions of the options, known to whoever imported a proto that has them.
    return any(option.full_name.startswith("buf.validate.") for option, _ in element.GetOptions().ListFields())
