"""Step 2. Fetches the http(s) URLs that a request names; knows nothing about what the bytes mean.

Each host name is resolved once, each address checked, and the connection made to that very address, so a name that
changes its answer between the check and the connection reaches nothing private. Redirects are checked the same way, size, time
and type while the answer comes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

import httpx

from omni_server.addresses import is_public
from omni_server.config import UrlPolicy
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.lanes import Lane
from omni_server.wording import shown

MAX_REDIRECTS = 3
# A page or a document of an interface is no picture and no recording, whoever serves it.
MEDIA_TYPES = (
    "image/",
    "audio/",
    "video/",
    "application/octet-stream",
    "binary/octet-stream",
    "application/ogg",
    "application/mp4",
)

Resolve = Callable[[str, int], Awaitable[list[str]]]


class UrlFetcher:
    """`await fetcher(url, param, limit)`: at most `limit` bytes of what the URL holds."""

    def __init__(
        self, policy: UrlPolicy, resolve: Resolve | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`resolve(host, port)` gives the addresses of a name or raises OSError; the system's, unless told otherwise."""
        self._policy = policy
        # A lane of its own: names whose servers never answer must not hold up what else waits for a thread.
        self._lane = Lane("resolve", workers=4)
        self._resolve = resolve or self._ask_system
        self._transport = transport
        # Reading the system's certificates takes tens of milliseconds: once, and not on the event loop's time.
        self._certificates = ssl.create_default_context() if policy.allowed else False

    async def __call__(self, url: str, param: str, limit: int) -> bytes:
        if not self._policy.allowed:
            raise MediaError(
                f"`{param}` is the URL {shown(url)}; this server does not fetch URLs, expected a data: URL "
                "(an operator can allow URLs with --allow-media-urls)",
                param=param,
            )
        try:
            async with asyncio.timeout(self._policy.seconds):
                return await self._follow(url, param, limit)
        except TimeoutError:
            raise MediaError(
                f"`{param}`: {shown(url)} did not arrive within {self._policy.seconds:g} seconds", param=param
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as problem:
            raise MediaError(f"`{param}`: {shown(url)} could not be fetched: {problem}", param=param) from None

    async def _follow(self, url: str, param: str, limit: int) -> bytes:
        # Each fetch has its own client: a pool keyed by address would hand one host's connection to another host.
        async with httpx.AsyncClient(
            verify=self._certificates, trust_env=False, follow_redirects=False, transport=self._transport
        ) as client:
            target = httpx.URL(url)
            for _ in range(MAX_REDIRECTS + 1):
                request = await self._pinned(client, target, param)
                response = await client.send(request, stream=True)
                try:
                    if not response.has_redirect_location:
                        return await _body(response, target, param, limit)
                    target = target.join(response.headers["location"])
                finally:
                    await response.aclose()
        raise MediaError(f"`{param}`: {shown(url)} redirects more than {MAX_REDIRECTS} times", param=param)

    async def _pinned(self, client: httpx.AsyncClient, url: httpx.URL, param: str) -> httpx.Request:
        """A request for `url` that connects to the address that was checked."""
        if url.scheme not in ("http", "https") or not url.host:
            raise MediaError(f"`{param}`: expected an http or https URL, got {shown(str(url))}", param=param)
        if url.userinfo:
            raise MediaError(f"`{param}`: expected a URL without a user's name, got one at {shown(url.host)}", param=param)
        if self._policy.hosts and url.host.lower() not in self._policy.hosts:
            raise MediaError(
                f"`{param}`: this server does not fetch from {shown(url.host)}, only from "
                + ", ".join(f"`{host}`" for host in self._policy.hosts),
                param=param,
            )
        address = await self._address(url, param)
        return client.build_request(
            "GET",
            url.copy_with(host=address, userinfo=b""),
            headers={"host": url.netloc.decode("ascii"), "accept-encoding": "identity", "user-agent": "omni-server"},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )

    async def _address(self, url: httpx.URL, param: str) -> str:
        try:
            addresses = await self._resolve(url.host, url.port or (443 if url.scheme == "https" else 80))
        except OSError:
            raise MediaError(f"`{param}`: the host {shown(url.host)} is not known", param=param) from None
        # One private answer among public ones is how a name is made to pass a check: refuse them all.
        if not self._policy.private and not all(is_public(address) for address in addresses):
            raise MediaError(
                f"`{param}`: {shown(url.host)} is not a public address; this server fetches only public ones",
                param=param,
            )
        return addresses[0]

    async def _ask_system(self, host: str, port: int) -> list[str]:
        found = await self._lane.run(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]

    def close(self) -> None:
        self._lane.close()


async def _body(response: httpx.Response, url: httpx.URL, param: str, limit: int) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise MediaError(f"`{param}`: {shown(str(url))} answered with status {response.status_code}", param=param)
    kind = response.headers.get("content-type", "").strip().lower()
    if kind and not kind.startswith(MEDIA_TYPES):
        raise MediaError(f"`{param}`: {shown(str(url))} is {shown(kind)}; expected a picture, a sound or a film", param=param)
    too_large = MediaTooLarge(f"`{param}`: {shown(str(url))} holds more than {limit} bytes", param=param)
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    pieces, size = [], 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > limit:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)
