"""The SDK's error tree. Says what went wrong on either side of the wire; knows no transport.

OmniError
├── MediaError               a picture or a recording that was handed in cannot be read; nothing was sent
├── MissingDependency        an optional package is not installed; also an ImportError
└── APIError                 message, type, code, param, body, request_id
    ├── APIStatusError       the server answered with an error; status_code, headers
    │   ├── BadRequestError            400     ├── NotFoundError              404     ├── UnprocessableEntityError  422
    │   ├── AuthenticationError        401     ├── ConflictError              409     ├── RateLimitError            429
    │   ├── PermissionDeniedError      403     ├── MediaTooLargeError         413     └── InternalServerError     >= 500
    ├── APIConnectionError   no server could be reached, or the connection was lost
    │   ├── APITimeoutError            no answer within the time limit
    │   └── StreamBrokenError          the connection ended inside a reply; nothing is resumed behind your back
    ├── ReplyFailedError     the reply had begun, and the server said that it failed
    └── ResponseFormatError  an answer that is not what this SDK knows how to read
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class OmniError(Exception):
    """Whatever the SDK raises on purpose. `str(error)` is one sentence for a user."""


class MediaError(OmniError):
    """A picture or a recording that cannot be read or written."""


class MissingDependency(OmniError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""


class APIError(OmniError):
    """Something that has to do with a request. `request_id` is what the server's log calls it; `param` names the field that
    was wrong, `type` and `code` the kind of error, `body` is the error as the server sent it, where it did."""

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        body: object = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.type = type
        self.code = code
        self.param = param
        self.body = body


class APIStatusError(APIError):
    """The server answered, with an error. `status_code` is the HTTP status; of a call over gRPC, the one that means the same.
    `headers` are the answer's, with lower-case names."""

    def __init__(self, message: str, *, status_code: int, headers: Mapping[str, str] | None = None, **described: Any) -> None:
        super().__init__(message, **described)
        self.status_code = status_code
        self.headers = dict(headers or {})


class BadRequestError(APIStatusError):
    """400: a field is wrong; `param` names it."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing or unknown."""


class PermissionDeniedError(APIStatusError):
    """403: the API key may not do this."""


class NotFoundError(APIStatusError):
    """404: no such model, or no such resource."""


class ConflictError(APIStatusError):
    """409: the state on the server does not allow this now."""


class MediaTooLargeError(APIStatusError):
    """413: a picture, a recording or a body over a limit of the server."""


class UnprocessableEntityError(APIStatusError):
    """422: understood and not acceptable."""


class RateLimitError(APIStatusError):
    """429: too many requests."""


class InternalServerError(APIStatusError):
    """500 and above: a fault of the server, or a server that is full (503)."""


class APIConnectionError(APIError):
    """No server could be reached, or the connection was lost before an answer."""


class APITimeoutError(APIConnectionError):
    """No answer within the time limit."""


class StreamBrokenError(APIConnectionError):
    """The connection ended inside a reply. What had arrived is in the stream's `snapshot`."""


class ReplyFailedError(APIError):
    """The reply had begun, and the server said that it failed. What had arrived is in the stream's `snapshot`."""


class ResponseFormatError(APIError):
    """An answer that is not what this SDK knows how to read, such as a web page from a proxy in between."""


BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: MediaTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_class(status_code: int) -> type[APIStatusError]:
    """The class for a status; one that has no class of its own is a plain `APIStatusError`."""
    return BY_STATUS.get(status_code, InternalServerError if status_code >= 500 else APIStatusError)


def status_error(status_code: int, content: bytes, headers: Mapping[str, str], request_id: str | None) -> APIStatusError:
    """The error that an answer of `status_code` with the body `content` stands for."""
    headers = {name.lower(): value for name, value in headers.items()}
    try:
        body: object = json.loads(content)
    except ValueError:
        body = content.decode("utf-8", "replace")[:500]
    told = told_error(body)
    message = told.pop("message") or f"the server answered {status_code}" + (f": {body}" if body else "")
    request_id = headers.get("x-request-id", request_id)
    return status_class(status_code)(
        message, status_code=status_code, headers=headers, body=body, request_id=request_id, **told
    )


def told_error(body: object) -> dict[str, Any]:
    """`message`, `type`, `code` and `param` of a body of the shape `{"error": {...}}`; all `None` where it has another."""
    error = body.get("error") if isinstance(body, Mapping) else None
    fields = error if isinstance(error, Mapping) else {"message": error if isinstance(error, str) else None}
    return {name: fields.get(name) for name in ("message", "type", "code", "param")}
