"""Step 2: URLs are fetched only as far as the operator allows. Everything stays on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from omni_server.config import UrlPolicy
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.fetch import UrlFetcher

OPEN = UrlPolicy(allowed=True, private=True, seconds=2)


@asynccontextmanager
async def server(answer: bytes, hold: float = 0) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers every connection with `answer`; gives its URL and the requests that came."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await asyncio.sleep(hold)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", requests


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n".encode() + body


async def test_fetches() -> None:
    """Catches a lost query, a wrong Host header, and a body that is decompressed behind the size limit."""
    async with server(http(b"picture")) as (url, requests):
        assert await UrlFetcher(OPEN)(f"{url}/a%20b?c=d", "field", 100) == b"picture"
    head = requests[0].decode().lower()
    assert head.startswith("get /a%20b?c=d http/1.1")
    assert f"host: {url.removeprefix('http://')}" in head
    assert "accept-encoding: identity" in head


async def test_off_by_default() -> None:
    """Catches a server that fetches for strangers because nobody said no."""
    async with server(http(b"picture")) as (url, requests):
        with pytest.raises(MediaError, match="--allow-media-urls") as caught:
            await UrlFetcher(UrlPolicy())(url, "field", 100)
    assert caught.value.param == "field"
    assert not requests


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "0.0.0.0", "2130706433"],
)
async def test_private_addresses_are_refused(host: str) -> None:
    """Catches requests to the cloud's metadata service, and loopback under its many names."""
    with pytest.raises(MediaError, match=r"not a public address|not known"):
        await UrlFetcher(UrlPolicy(allowed=True))(f"http://{host}:9/", "field", 100)


async def test_redirects_are_checked_too() -> None:
    """Catches an allowed host that redirects to a forbidden one."""
    async with server(http(b"", "302 Found", "location: http://localhost:9/secret\r\n")) as (url, _):
        fetcher = UrlFetcher(UrlPolicy(allowed=True, private=True, hosts=("127.0.0.1",)))
        with pytest.raises(MediaError, match=r"`localhost`, only from `127\.0\.0\.1`"):
            await fetcher(url, "field", 100)
    async with server(http(b"", "302 Found", "location: file:///etc/passwd\r\n")) as (url, _):
        with pytest.raises(MediaError, match="expected an http or https URL"):
            await UrlFetcher(OPEN)(url, "field", 100)


async def test_redirects_end() -> None:
    """Catches a server that is kept busy by a circle."""
    async with server(http(b"", "302 Found", "location: /again\r\n")) as (url, requests):
        with pytest.raises(MediaError, match="redirects more than 3 times"):
            await UrlFetcher(OPEN)(url, "field", 100)
    assert len(requests) == 4


@pytest.mark.parametrize("headers", ["content-length: 5000\r\n", ""])
async def test_size_limit(headers: str) -> None:
    """Catches a body without an announced length that is read to its end."""
    async with server(http(b"x" * 5000, headers=headers)) as (url, _):
        with pytest.raises(MediaTooLarge, match="more than 100 bytes"):
            await UrlFetcher(OPEN)(url, "field", 100)


async def test_time_limit() -> None:
    """Catches a slow server that holds a request for ever."""
    async with server(http(b"x", headers="content-length: 50\r\n"), hold=2) as (url, _):
        with pytest.raises(MediaError, match=r"within 0\.2 seconds"):
            await UrlFetcher(UrlPolicy(allowed=True, private=True, seconds=0.2))(url, "field", 100)


@pytest.mark.parametrize(("answer", "says"), [(http(b"", "404 Not Found"), "status 404"), (b"nonsense\r\n\r\n", "fetched")])
async def test_bad_answers(answer: bytes, says: str) -> None:
    """Catches an error page that is decoded as a picture."""
    async with server(answer) as (url, _):
        with pytest.raises(MediaError, match=says):
            await UrlFetcher(OPEN)(url, "field", 100)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "https://host:port/", "http://" + "a" * 300 + "/"])
async def test_malformed_urls(url: str) -> None:
    """Catches a 500 for what is no URL."""
    with pytest.raises(MediaError):
        await UrlFetcher(OPEN)(url, "field", 100)
