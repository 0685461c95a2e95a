"""The error that the gRPC status of a live conversation stands for. Sync, no sockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.rpc import error_details_pb2, status_pb2

from omni_client.errors import APIConnectionError, APIError, APITimeoutError, StreamBrokenError, status_class

# A status of gRPC and the HTTP status that means the same. Those of our own errors are as the server has them.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 503,
    "UNAVAILABLE": 503,
    "UNIMPLEMENTED": 501,
}
BY_REASON = {("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"): 429}  # a limit of the caller; else one of the server


def call_error(
    code: str, message: str, trailers: Sequence[tuple[str, Any]], request_id: str, target: str, *, begun: bool
) -> APIError:
    """The error that a gRPC status stands for. `code` is its name; `begun` is whether the server had answered by then."""
    sent = dict(trailers)
    request_id = sent.get("x-request-id", request_id)
    reason, field = _error_info(sent.get("grpc-status-details-bin", b""))
    if reason is None and code in ("UNAVAILABLE", "CANCELLED") and begun:
        return StreamBrokenError(f"the connection broke inside the conversation: {message}", request_id=request_id)
    if reason is None and code == "UNAVAILABLE":
        return APIConnectionError(f"no server answers at {target}: {message}", request_id=request_id)
    if code == "DEADLINE_EXCEEDED":
        return APITimeoutError(f"{target} did not answer in time", request_id=request_id)
    status = BY_REASON.get((code, reason or "")) or (400 if code == "UNIMPLEMENTED" and reason else HTTP_STATUS.get(code, 500))
    return status_class(status)(
        message or code, status_code=status, request_id=request_id, code=reason and reason.lower(), param=field, type=code
    )


def _error_info(packed: bytes) -> tuple[str | None, str | None]:
    """`reason` and field of the google.rpc.ErrorInfo among the details."""
    for detail in status_pb2.Status.FromString(packed).details:
        told = error_details_pb2.ErrorInfo()
        if detail.Unpack(told):
            return told.reason, told.metadata.get("field")
    return None, None
