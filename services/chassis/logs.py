"""Logs: one JSON object per line on standard output, with the ids of trace and journey.

A message is a constant template; what varies goes into `extra=` as ids and numbers. Requests, messages, tokens and
anything personal are never logged. Of what was raised the places and the types are written, not the text: that of
PostgreSQL quotes whole rows.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from time import monotonic
from types import TracebackType

from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

from services.chassis.errors import Refusal
from services.chassis.telemetry import current_journey

# Libraries that tell at INFO what only they care about.
_NOISY = ("aiokafka", "kafka", "faststream", "asyncio", "grpc", "grpc._cython", "urllib3", "opentelemetry")


# What they say in a loop while something is away is written once in this time.
_REPEAT_SECONDS = 10.0
_MOST_REMEMBERED = 1_000


def configure(service: str, level: str) -> None:
    """Sends all logs of the process to standard output as JSON, from this level on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter(service))
    handler.addFilter(_Patience())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.captureWarnings(True)


class _Patience(logging.Filter):
    """Lets the same message of a noisy library through once in a while, with how often it was left out since."""

    def __init__(self) -> None:
        super().__init__()
        # By message: when it was last let through, and how often it was left out since.
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if not record.name.startswith(_NOISY):
            return True
        message, now = (record.name, str(record.msg)), monotonic()
        last, left_out = self._said.get(message, (float("-inf"), 0))
        if now - last < _REPEAT_SECONDS:
            self._said[message] = (last, left_out + 1)
            return False
        if left_out:
            record.left_out = left_out
        if len(self._said) >= _MOST_REMEMBERED:
            self._said.clear()
        self._said[message] = (now, 0)
        return True


class _Formatter(JsonFormatter):
    """Writes time (UTC, RFC 3339), level, logger, message, service, trace, journey, and what `extra=` has."""

    def __init__(self, service: str) -> None:
        super().__init__(
            "%(message)s %(levelname)s %(name)s",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "stack"},
            static_fields={"service": service},
            json_ensure_ascii=False,
        )

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """Where it was raised, and what led to it; the last line names the type."""
        return "" if ei[1] is None else "\n".join(_told(ei[1]))

    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        """Adds what comes from the time and the context."""
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        super().add_fields(log_data, record, message_dict)
        span = trace.get_current_span().get_span_context()
        if span.trace_flags.sampled:
            log_data["trace_id"] = trace.format_trace_id(span.trace_id)
            log_data["span_id"] = trace.format_span_id(span.span_id)
        journey = current_journey()
        if journey is not None:
            log_data["journey_id"] = journey


def _told(error: BaseException) -> list[str]:
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = [*_told(earlier), "which led to:"] if earlier is not None else []
    for part in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        lines += [*_told(part), "as part of:"]
    # A refusal of ours has a text that is free of personal data.
    text = f": {error}" if isinstance(error, Refusal) else ""
    places = [line.rstrip() for line in traceback.format_tb(error.__traceback__)]
    return [*lines, *places, f"{type(error).__qualname__}{text}"]
