"""How log lines look: text for people, or one JSON object a line. Both name the request that the line is about."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from omni_server.call import current_call

REFUSED = "ASGI callable returned without completing handshake."
TEXT = "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"


def set_up(format: str, level: str) -> None:
    """For the whole process. Libraries keep to warnings, for what they say of a request may be more than a log should hold."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if format == "json" else logging.Formatter(TEXT))
    handler.addFilter(_name_request)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("omni_server").setLevel(level.upper())
    logging.getLogger("uvicorn.error").addFilter(_is_no_refusal)


class JsonLines(logging.Formatter):
    """`fields` of a record, where it has them, stand beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _name_request(record: logging.LogRecord) -> bool:
    call = current_call()
    record.request_id = call.request_id if call is not None else "-"
    return True


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """uvicorn takes a WebSocket that was refused with an HTTP answer for one that was forgotten: an error at every stranger."""
    return record.msg != REFUSED
