"""Step 2. Fetches the http(s) URLs that a request names; knows nothing about what the bytes mean.

Each host name is resolved once, each address checked, and the connection made to that very address, so a name that
changes its answer between the check and the connection reaches nothing private. Redirects are checked the same way.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl

import httpx

from omni_server.config import UrlPolicy
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.wording import shown

MAX_REDIRECTS = 3


class UrlFetcher:
    """`await fetcher(url, param, limit)`: at most `limit` bytes of what the URL holds."""

    def __init__(self, policy: UrlPolicy) -> None:
        self._policy = policy
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
        async with httpx.AsyncClient(verify=self._certificates, trust_env=False, follow_redirects=False) as client:
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
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except OSError:
            raise MediaError(f"`{param}`: the host {shown(url.host)} is not known", param=param) from None
        addresses = [str(entry[4][0]) for entry in found]
        # One private answer among public ones is how a name is made to pass a check: refuse them all.
        if not self._policy.private and not all(_is_public(address) for address in addresses):
            raise MediaError(
                f"`{param}`: {shown(url.host)} is not a public address; this server fetches only public ones",
                param=param,
            )
        return addresses[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None) or parsed
    return bool(inner.is_global and not inner.is_multicast)


async def _body(response: httpx.Response, url: httpx.URL, param: str, limit: int) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise MediaError(f"`{param}`: {shown(str(url))} answered with status {response.status_code}", param=param)
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
