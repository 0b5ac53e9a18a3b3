"""Refusals on the wire: a gRPC status with `google.rpc` details, and back."""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from services.chassis.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotNow,
    Refusal,
    TooMuch,
    Unavailable,
)

DOMAIN = "shop"
# Nothing to do with what was asked: somebody must look at it. Its details have the `trace_id` to look for.
INTERNAL = "INTERNAL"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"

_DETAILS = "grpc-status-details-bin"
_RETRY_AFTER_SECONDS = 1
# All of it travels in headers, which clients limit to some kilobytes.
_MAX_TEXT = 500
_MAX_FIELDS = 20
_OF_STATUS: dict[grpc.StatusCode, type[Refusal]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: NotNow,
    grpc.StatusCode.ALREADY_EXISTS: NotNow,
    grpc.StatusCode.OUT_OF_RANGE: NotNow,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooMuch,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
}


class RemoteError(Exception):
    """Another service failed at our call in a way that is a mistake of one of us, and trying again would not help."""


class Overloaded(TooMuch):
    """The server has all it can handle; trying again later is safe, nothing was begun."""

    reason = "OVERLOADED"


class RateLimited(TooMuch):
    """The caller calls too often. Trying again later is safe, nothing was begun."""

    reason = "RATE_LIMITED"

    def __init__(self, per_second: float) -> None:
        super().__init__("too many calls; wait a little", limit_per_second=f"{per_second:g}")


async def abort(context: grpc.aio.ServicerContext[bytes, bytes], refusal: Refusal) -> NoReturn:
    """Ends the call with the refusal."""
    details: list[Message] = [_error_info(refusal.reason, refusal.details)]
    if isinstance(refusal, InvalidInput):
        bad = error_details_pb2.BadRequest()
        for field, problem in refusal.fields[:_MAX_FIELDS]:
            bad.field_violations.add(field=field[:_MAX_TEXT], description=problem[:_MAX_TEXT])
        details.append(bad)
    if isinstance(refusal, Unavailable) or refusal.reason in (Overloaded.reason, RateLimited.reason):
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=_RETRY_AFTER_SECONDS)))
    await abort_with(context, grpc.StatusCode[refusal.status], str(refusal), details)


async def abort_internal(context: grpc.aio.ServicerContext[bytes, bytes], trace_id: str) -> NoReturn:
    """Ends the call with INTERNAL and nothing but the id under which the failure is logged."""
    info = _error_info(INTERNAL, {"trace_id": trace_id})
    await abort_with(context, grpc.StatusCode.INTERNAL, "something went wrong on our side", [info])


async def abort_deadline(context: grpc.aio.ServicerContext[bytes, bytes]) -> NoReturn:
    """Ends the call with DEADLINE_EXCEEDED. Whether it took effect is not known; repeating it is safe."""
    info = _error_info(DEADLINE_EXCEEDED, {})
    await abort_with(context, grpc.StatusCode.DEADLINE_EXCEEDED, "this took too long", [info])


async def abort_with(
    context: grpc.aio.ServicerContext[bytes, bytes], code: grpc.StatusCode, message: str, details: list[Message]
) -> NoReturn:
    """Ends the call with a status and its details."""
    message = message[: 2 * _MAX_TEXT]
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    await context.abort(code, message, ((_DETAILS, status.SerializeToString()),))
    raise AssertionError("abort returned")


def from_status(error: grpc.aio.AioRpcError) -> Refusal | RemoteError:
    """What a failed call of ours means: the refusal the other side raised, with its reason and details."""
    code = error.code()
    text = error.details() or ""
    info, bad = _details(error)
    reason = info.reason or None
    details = dict(info.metadata)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        fields = [(violation.field, violation.description) for violation in bad.field_violations]
        return InvalidInput(fields or [("", text)], reason=reason, **_keywords(details))
    kind = _OF_STATUS.get(code)
    if kind is None:
        return RemoteError(f"{code.name} {reason or ''}".strip())
    return kind(text, reason=reason, **_keywords(details))


def _details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            with suppress(DecodeError):  # Details help; a status without them still says what kind it is.
                for packed in status_pb2.Status.FromString(value).details:
                    packed.Unpack(info)
                    packed.Unpack(bad)
    return info, bad


def _error_info(reason: str, details: dict[str, str]) -> error_details_pb2.ErrorInfo:
    metadata = {name: value[:_MAX_TEXT] for name, value in details.items()}
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def _keywords(details: dict[str, str]) -> dict[str, str]:
    # These two are arguments of a refusal itself.
    return {name: value for name, value in details.items() if name not in ("message", "reason", "fields", "self")}
