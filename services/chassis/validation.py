"""Checks of requests: against the rules written in their protos (protovalidate), and for text nobody can keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
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


def refuse_nul(raw: bytes, message: Message, rows_field: str = "") -> None:
    """Raises `InvalidInput` with each text of the message that has a NUL character in it: PostgreSQL keeps none.

    `rows_field` is left alone: its rows are checked one by one by whoever takes them in.
    """
    if b"\x00" not in raw:  # nearly always, and for nearly nothing
        return
    fields = [(path, "must have no NUL character") for path in _texts_with_nul(message, but=rows_field)]
    if fields:
        raise InvalidInput(fields)


def _texts_with_nul(message: Message, inside: str = "", but: str = "") -> Iterator[str]:
    for field, value in message.ListFields():
        if field.name == but:
            continue
        path = f"{inside}{field.name}"
        for place, element in _elements(field, path, value):
            if isinstance(element, Message):
                yield from _texts_with_nul(element, f"{place}.")
            elif isinstance(element, str) and "\x00" in element:
                yield place


def _elements(field: FieldDescriptor, path: str, value: Any) -> Iterator[tuple[str, object]]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        # Keys of maps are data and are left out, as in `_path`.
        yield from ((path, element) for entry in value.items() for element in entry)
    elif field.is_repeated:
        yield from ((f"{path}[{index}]", element) for index, element in enumerate(value))
    else:
        yield path, value


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
