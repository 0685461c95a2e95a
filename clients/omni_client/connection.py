"""What the sync and the async client share: where the server is, how a call becomes an HTTP request, what a fault means."""

from __future__ import annotations

import os
import random
import ssl
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from omni_client.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    OmniError,
    StreamBrokenError,
    status_error,
)
from omni_client.retries import pause_before_retry
from omni_client.wire import Answer, Exchange

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = 600.0
# Whether a server is there at all is known much sooner than what it has to say.
CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Connection:
    """`url` has no slash at its end and no `/v1`. `ca_file` is a PEM file of whom to trust, where it is not the usual ones."""

    url: str
    api_key: str | None
    ca_file: str | None
    timeout: float
    max_retries: int

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """What httpx checks the server's certificate with."""
        if self.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as problem:
            raise OmniError(f"`{self.ca_file}` cannot be read as certificates: {problem}") from None

    def request(self, exchange: Exchange[Any], request_id: str, timeout: float | None) -> dict[str, Any]:
        """The arguments of `httpx.Client.build_request`."""
        headers = {"x-request-id": request_id, "user-agent": "omni-client"}
        if self.api_key is not None:
            headers["authorization"] = f"Bearer {self.api_key}"
        seconds = self.timeout if timeout is None else timeout
        request: dict[str, Any] = {
            "method": exchange.method,
            "url": self.url + exchange.path,
            "headers": headers,
            "timeout": httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT)),
        }
        named = {"model": exchange.model} if exchange.model else {}
        if exchange.body is not None:
            request["json"] = named | exchange.body
        if exchange.files:
            files = [(field, (f"{field}.{medium.format}", medium.data)) for field, medium in exchange.files]
            request |= {"data": named | exchange.form, "files": files}
        return request

    def pause(self, attempt: int, problem: APIError) -> float | None:
        """Seconds until `problem` is tried again, or `None` where it is not."""
        status, headers = (problem.status_code, problem.headers) if isinstance(problem, APIStatusError) else (None, None)
        return pause_before_retry(attempt, self.max_retries, status, headers, now=time.time(), chance=random.random())

    def fault(self, fault: httpx.RequestError, request_id: str) -> APIConnectionError:
        """No answer at all."""
        problem: APIConnectionError
        if isinstance(fault, httpx.TimeoutException) and not isinstance(fault, httpx.ConnectTimeout):
            problem = APITimeoutError(f"{self.url} did not answer in time", request_id=request_id)
        else:
            problem = APIConnectionError(f"no server answers at {self.url}: {_told(fault)}", request_id=request_id)
        problem.__cause__ = fault
        return problem

    def broken(self, fault: httpx.RequestError, request_id: str) -> APIConnectionError:
        """An answer that had begun."""
        problem: APIConnectionError
        if isinstance(fault, httpx.TimeoutException):
            problem = APITimeoutError(f"{self.url} fell silent inside the reply", request_id=request_id)
        else:
            problem = StreamBrokenError(f"the connection broke inside the reply: {_told(fault)}", request_id=request_id)
        problem.__cause__ = fault
        return problem


def connection_from(
    base_url: str | None,
    api_key: str | None,
    ca_file: str | os.PathLike[str] | None,
    timeout: float,
    max_retries: int,
    environ: Mapping[str, str] = os.environ,
) -> Connection:
    """Arguments first, then `OMNI_BASE_URL`, `OMNI_API_KEY` and `OMNI_CA_FILE`, then a server on this machine."""
    url = base_url or environ.get("OMNI_BASE_URL") or DEFAULT_URL
    if not url.startswith(("http://", "https://")):
        raise OmniError(f"the server's address is `{url}`; expected one that begins with http:// or https://")
    url = url.rstrip("/").removesuffix("/v1").rstrip("/")
    trusted = os.fspath(ca_file) if ca_file is not None else environ.get("OMNI_CA_FILE") or None
    return Connection(url, api_key or environ.get("OMNI_API_KEY") or None, trusted, timeout, max_retries)


def new_request_id() -> str:
    """Made on this side, so that a request whose answer never came can be found in the server's log."""
    return f"req_{uuid.uuid4().hex}"


def answered_id(response: httpx.Response, request_id: str) -> str:
    """The request id that the server went by: ours, unless something in between chose another."""
    return response.headers.get("x-request-id", request_id)


def read_error(response: httpx.Response, request_id: str) -> APIStatusError:
    """The error of an answer whose body has been read."""
    return status_error(response.status_code, response.content, response.headers, request_id)


def read_answer(response: httpx.Response, request_id: str) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.content, headers, answered_id(response, request_id))


def _told(fault: Exception) -> str:
    return str(fault) or type(fault).__name__
