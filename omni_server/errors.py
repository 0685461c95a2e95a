"""The error tree. Every error that a user can meet knows its HTTP status, its gRPC code and its OpenAI `type` and `code`.

OmniError                          500  INTERNAL             a fault of ours
├── RequestError                   400  INVALID_ARGUMENT     the request is wrong; `param` names the field
│   ├── MediaError                 400  INVALID_ARGUMENT     media that cannot be read
│   ├── MediaTooLarge              413  INVALID_ARGUMENT     media over a limit of this server
│   ├── ContextOverflow            400  INVALID_ARGUMENT     prompt and reply do not fit the context
│   ├── ModelNotFound              404  NOT_FOUND            no such model here
│   ├── MediaNotFound              404  NOT_FOUND            no such stored file or voice, or no longer
│   ├── ResponseNotFound           404  NOT_FOUND            no such stored response, or no longer
│   ├── ModalityUnavailable        400  UNIMPLEMENTED        the checkpoint lacks this modality
│   └── OutOfOrder                 400  FAILED_PRECONDITION  a message of a live call at the wrong time
├── Unauthenticated                401  UNAUTHENTICATED      no API key, or one that is not known
├── Forbidden                      403  PERMISSION_DENIED    this key, or this web page, may not do this
├── QuotaExceeded                  429  RESOURCE_EXHAUSTED   a limit of this key is used up; may be retried
├── Overloaded                     503  RESOURCE_EXHAUSTED   the queue is full; may be retried
├── DeadlineExceeded               504  DEADLINE_EXCEEDED    the time that the client gave has passed, or cannot suffice
├── EngineUnavailable              503  UNAVAILABLE          the backbone is not there; may be retried
├── ReaderStalled                  408  ABORTED              the client did not read its answer
├── OutOfMemory                    503  UNAVAILABLE          this server has no memory left for it; may be retried
├── StorageUnavailable             503  UNAVAILABLE          a file of the answer could not be stored; may be retried
├── ServerStopping                 503  UNAVAILABLE          the server is about to end; may be retried elsewhere
├── Stalled                        503  UNAVAILABLE          a step of the request has not come back in time
├── ModalityDown                   503  UNAVAILABLE          a model that reads or makes media is down; may be retried
├── EncodeFailed                   500  INTERNAL             a picture or a recording could not be encoded
├── DecodeFailed                   500  INTERNAL             a vocoder or a picture could not be made
├── ConfigError                    start-up only             a bad setting
└── CheckpointError                start-up only             a checkpoint that must not be served
"""

from __future__ import annotations

from typing import ClassVar


class OmniError(Exception):
    """Something of ours failed. `str(error)` is safe to show to a user."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    type: ClassVar[str] = "server_error"
    code: str | None = "internal_error"
    retry: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        """`code`: where clients tell errors of one class apart. `retry_after`: seconds after which the same request should
        succeed, where that is known."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after = retry_after


class RequestError(OmniError):
    """The request is wrong; the message says what was wrong, what was expected and the value."""

    http_status = 400
    grpc_code = "INVALID_ARGUMENT"
    type = "invalid_request_error"
    code = "invalid_value"


class MediaError(RequestError):
    """Media that cannot be fetched, read or decoded."""

    code = "invalid_media"


class MediaTooLarge(RequestError):
    """Media over a limit of this server: bytes, pixels or seconds."""

    http_status = 413
    code = "media_too_large"


class ContextOverflow(RequestError):
    """The prompt leaves no room for a reply in the model's context, or not for a whole one where half of one is of no use."""

    code = "context_length_exceeded"


class ModelNotFound(RequestError):
    """The named model is not served here."""

    http_status = 404
    grpc_code = "NOT_FOUND"
    code = "model_not_found"


class MediaNotFound(RequestError):
    """A stored file or voice that was never there, or is there no longer."""

    http_status = 404
    grpc_code = "NOT_FOUND"
    code = "not_found"


class ResponseNotFound(RequestError):
    """A stored response that was never there, or is there no longer."""

    http_status = 404
    grpc_code = "NOT_FOUND"
    code = "not_found"


class ModalityUnavailable(RequestError):
    """The checkpoint has no component for this modality."""

    grpc_code = "UNIMPLEMENTED"
    code = "unsupported_modality"


class OutOfOrder(RequestError):
    """A message of a live call that cannot come at this time, such as a second configuration."""

    grpc_code = "FAILED_PRECONDITION"
    code = "out_of_order"


class Unauthenticated(OmniError):
    """The caller has shown no API key, or one that is not known."""

    http_status = 401
    grpc_code = "UNAUTHENTICATED"
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(OmniError):
    """The caller is known, or a web page is, and may not do this."""

    http_status = 403
    grpc_code = "PERMISSION_DENIED"
    type = "permission_error"
    code = "forbidden"


class QuotaExceeded(OmniError):
    """A limit of this caller is used up; `retry_after` says when there is more."""

    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retry = True


class Overloaded(OmniError):
    """The server is at its limit; the same request may succeed later."""

    http_status = 503
    grpc_code = "RESOURCE_EXHAUSTED"
    code = "overloaded"
    retry = True


class DeadlineExceeded(OmniError):
    """The client has said how long it waits, and that is over, or too short for any reply of this kind."""

    http_status = 504
    grpc_code = "DEADLINE_EXCEEDED"
    code = "deadline_exceeded"


class EngineUnavailable(OmniError):
    """The backbone's engine is not running."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    code = "engine_unavailable"
    retry = True


class ReaderStalled(OmniError):
    """The client has not read its answer for so long that it is given up."""

    http_status = 408
    grpc_code = "ABORTED"
    code = "reader_stalled"


class OutOfMemory(OmniError):
    """A step of this request found no memory; a smaller one, or the same one later, may find some."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    code = "out_of_memory"
    retry = True


class StorageUnavailable(OmniError):
    """A file of this answer could not be stored: the disk is full, or refuses."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    code = "storage_unavailable"
    retry = True


class ServerStopping(OmniError):
    """The server takes nothing new any more, or its time was over before this was done."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    code = "server_stopping"
    retry = True


class Stalled(OmniError):
    """A call in a lane took longer than the lane allows. Its thread may still be in it, and nobody waits for it any more."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    code = "stalled"


class ModalityDown(OmniError):
    """The model that reads or makes one modality has failed, and is probed until it works."""

    http_status = 503
    grpc_code = "UNAVAILABLE"
    code = "modality_down"
    retry = True


class EncodeFailed(OmniError):
    """A picture, a recording or a video that was read well could not be encoded."""

    code = "encode_failed"


class DecodeFailed(OmniError):
    """A picture or a voice could not be made from its codes."""

    code = "decode_failed"


class ConfigError(OmniError):
    """A setting that this server refuses to start with."""

    code = "bad_config"


class CheckpointError(OmniError):
    """A checkpoint that must not be served: wrong version, hash, band, component or shape."""

    code = "bad_checkpoint"
