"""Logs: one JSON object per line on standard output, with the ids of trace and journey.

A message is a constant template; what varies goes into `extra=` as ids and numbers. Requests, messages, tokens and
anything personal are never logged.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

from services.chassis.telemetry import current_journey

# Libraries that tell at INFO what only they care about.
_NOISY = ("aiokafka", "kafka", "faststream", "asyncio", "grpc", "grpc._cython", "urllib3", "opentelemetry")


def configure(service: str, level: str) -> None:
    """Sends all logs of the process to standard output as JSON, from this level on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.captureWarnings(True)


class _Formatter(JsonFormatter):
    """Writes time (UTC, RFC 3339), level, logger, message, service, trace, journey, and what `extra=` has."""

    def __init__(self, service: str) -> None:
        super().__init__(
            "%(message)s %(levelname)s %(name)s",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "stack"},
            static_fields={"service": service},
            json_ensure_ascii=False,
        )

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
