"""Step 2: no URL of a stranger reaches this machine or its neighbours. A listening socket counts who came."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from omni_server.addresses import is_public
from omni_server.config import UrlPolicy
from omni_server.errors import MediaError
from omni_server.fetch import UrlFetcher
from tests.doubles import ScriptedInternet, ScriptedNames

PUBLIC, OTHER_PUBLIC = "93.184.215.14", "151.101.1.140"
OPEN = UrlPolicy(allowed=True, seconds=2)
# `P` is the port of the socket that listens.
FORMS = (
    # loopback, plainly
    "http://127.0.0.1:P/", "https://127.0.0.1:P/", "http://localhost:P/", "http://LOCALHOST:P/", "http://127.0.0.2:P/",
    "http://127.255.255.254:P/", "http://0.0.0.0:P/", "http://[::1]:P/", "http://[::]:P/", "http://[0:0:0:0:0:0:0:1]:P/",
    # numbers that the system reads as an address: whole, octal, hexadecimal, mixed, short, with zeros before
    "http://2130706433:P/", "http://017700000001:P/", "http://0x7f000001:P/", "http://0x7F.0x0.0x0.0x1:P/",
    "http://0177.0.0.1:P/", "http://0177.0x0.0.1:P/", "http://127.1:P/", "http://127.0.1:P/", "http://0:P/",
    "http://00000177.0.0.1:P/", "http://127.0.0.01:P/", "http://0x7f.1:P/", "http://4294967295:P/",
    # dots, capitals and letters that are turned into others
    "http://127.0.0.1.:P/", "http://localhost.:P/", "http://127。0。0。1:P/", "http://127．0．0．1:P/", "http://①②⑦.⓪.⓪.①:P/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:P/", "http://LOCALHOſT:P/", "http://１２７.０.０.１:P/", "http://loc%61lhost:P/", "http://127.0.0.1%00.a.example:P/",
    "http://%31%32%37.0.0.1:P/", "http://local\u00adhost:P/", "http://xn--127-0.0.1:P/",
    # who is the host, and who the user
    "http://a.example@127.0.0.1:P/", "http://a.example:80@127.0.0.1:P/", "http://127.0.0.1:P@a.example/",
    "http://user:word@localhost:P/", "http://a.example\\@127.0.0.1:P/", "http://127.0.0.1:P\\@a.example/",
    "http://127.0.0.1:P#@a.example/", "http://127.0.0.1:P?@a.example/", "http://a.example%40127.0.0.1:P/",
    "http:\\\\127.0.0.1:P\\", "http:///127.0.0.1:P/", "http:127.0.0.1:P/", "http://127.0.0.1 :P/", "http://127.0.0.1\t:P/",
    "http://127.0.0.1\r\nHost: a.example:P/",
    # IPv4 inside of IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP
    "http://[::ffff:127.0.0.1]:P/", "http://[::ffff:7f00:1]:P/", "http://[0:0:0:0:0:ffff:7f00:0001]:P/", "http://[::127.0.0.1]:P/",
    "http://[::ffff:0:127.0.0.1]:P/", "http://[64:ff9b::127.0.0.1]:P/", "http://[64:ff9b::7f00:1]:P/", "http://[64:ff9b:1::7f00:1]:P/",
    "http://[2002:7f00:1::]:P/", "http://[2002:7f00:1::1]:P/", "http://[2001:0:7f00:1::80ff:fffe]:P/", "http://[fe80::5efe:7f00:1]:P/",
    "http://[::ffff:127.0.0.1%25lo]:P/", "http://[::1%25lo]:P/",
    # private, link-local, shared, documentation, benchmarks, multicast, broadcast, reserved, unique local, site-local
    "http://10.0.0.1:P/", "http://172.16.0.1:P/", "http://172.31.255.255:P/", "http://192.168.0.1:P/", "http://169.254.0.1:P/",
    "http://100.64.0.1:P/", "http://192.0.2.1:P/", "http://198.18.0.1:P/", "http://224.0.0.1:P/", "http://239.255.255.250:P/",
    "http://255.255.255.255:P/", "http://240.0.0.1:P/", "http://192.88.99.1:P/", "http://[fc00::1]:P/", "http://[fd12:3456::1]:P/",
    "http://[fe80::1]:P/", "http://[fec0::1]:P/", "http://[ff02::1]:P/", "http://[2001:db8::1]:P/", "http://[100::1]:P/", "http://[3fff::1]:P/",
    # what clouds tell their machines
    "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/", "http://[64:ff9b::a9fe:a9fe]/",
    "http://100.100.100.200/", "http://168.63.129.16/", "http://192.0.0.192/", "http://2852039166/", "http://0xa9fea9fe/",
    "http://169.254.169.254./", "http://169.254.43518/",
    # names
    "http://loopback.example:P/", "http://metadata.example/", "http://mixed.example:P/", "http://sixth.example:P/", "http://unknown.example:P/",
    # other schemes
    "file:///etc/passwd", "file://127.0.0.1:P/etc/passwd", "ftp://127.0.0.1:P/", "gopher://127.0.0.1:P/_", "dict://127.0.0.1:P/",
    "ws://127.0.0.1:P/", "unix:///var/run/docker.sock", "jar:http://127.0.0.1:P!/", "data://127.0.0.1:P/", "//127.0.0.1:P/",
)  # fmt: skip


def names() -> ScriptedNames:
    return ScriptedNames(
        loopback_example=[["127.0.0.1"]],
        metadata_example=[["169.254.169.254"]],
        mixed_example=[[PUBLIC, "127.0.0.1"]],
        sixth_example=[["::1"]],
        good_example=[[PUBLIC]],
        turning_example=[[PUBLIC], ["127.0.0.1"]],
    )


@asynccontextmanager
async def target() -> AsyncIterator[tuple[int, list[object]]]:
    """A port that listens on every address of this machine, and all that came to it."""
    came: list[object] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret")
        writer.close()

    listening = await asyncio.start_server(meet, "0.0.0.0", 0)
    port = listening.sockets[0].getsockname()[1]
    sixth = None
    with suppress(OSError):  # a machine without IPv6
        sixth = await asyncio.start_server(meet, "::", port, family=socket.AF_INET6)
    try:
        yield port, came
    finally:
        for one in (listening, sixth):
            if one is not None:
                one.close()


def test_there_are_enough_forms() -> None:
    """Catches a corpus that has shrunk."""
    assert len(set(FORMS)) == len(FORMS) >= 100


async def test_the_target_can_be_reached() -> None:
    """Catches a corpus that is refused because nothing listens: what is allowed does come."""
    async with target() as (port, came):
        fetch = UrlFetcher(UrlPolicy(allowed=True, private=True), names())
        for host in ("127.0.0.1", "localhost", "2130706433", "loopback.example"):
            assert await fetch(f"http://{host}:{port}/", "field", 100) == b"secret"
        assert len(came) == 4


async def test_every_form_is_refused_without_a_packet() -> None:
    """Catches each way of writing an address that the check reads in one way and the connection in another."""
    async with target() as (port, came):
        internet = ScriptedInternet()
        fetch = UrlFetcher(OPEN, names(), internet)
        for form in FORMS:
            with pytest.raises(MediaError):
                await fetch(form.replace("P", str(port)), "field", 100)
            assert not internet.sent and not came, form


async def test_every_form_is_refused_where_a_public_server_redirects_to_it() -> None:
    """Catches a check of the first address only."""
    async with target() as (port, came):
        internet = ScriptedInternet()
        fetch = UrlFetcher(OPEN, names(), internet)
        for form in FORMS:
            if "\r" in form:
                continue  # no header can hold it
            answer = httpx.Response(302, headers={"location": form.replace("P", str(port)).encode()})
            internet.answers = {PUBLIC: answer}
            with pytest.raises(MediaError):
                await fetch("http://good.example/", "field", 100)
            # What no URL can be is read as a path of the same server.
            assert set(internet.sent) == {PUBLIC} and not came, form


async def test_every_form_is_refused_by_a_list_of_hosts() -> None:
    """Catches a name that looks like an allowed one to the list and like another one to the connection."""
    policy = UrlPolicy(allowed=True, hosts=("a.example",), private=True, seconds=2)
    async with target() as (port, came):
        internet = ScriptedInternet()
        fetch = UrlFetcher(policy, ScriptedNames(), internet)
        for form in FORMS:
            with pytest.raises(MediaError):
                await fetch(form.replace("P", str(port)), "field", 100)
            assert not internet.sent and not came, form


async def test_a_name_is_asked_once_and_its_first_answer_holds() -> None:
    """Catches a name that turns to loopback between the check and the connection."""
    async with target() as (port, came):
        asked, internet = names(), ScriptedInternet(**{PUBLIC: httpx.Response(200, stream=httpx.ByteStream(b"picture"))})
        assert await UrlFetcher(OPEN, asked, internet)(f"http://turning.example:{port}/", "field", 100) == b"picture"
        assert (asked.asked, internet.sent, came) == (["turning.example"], [PUBLIC], [])


async def test_a_name_that_turns_between_redirects_is_refused() -> None:
    """Catches an answer that is remembered from an earlier hop, or not checked because its name was."""
    async with target() as (port, came):
        there = httpx.Response(302, headers={"location": f"http://turning.example:{port}/"})
        asked, internet = names(), ScriptedInternet(**{PUBLIC: there})
        with pytest.raises(MediaError, match="not a public address"):
            await UrlFetcher(OPEN, asked, internet)(f"http://turning.example:{port}/", "field", 100)
        assert (len(asked.asked), internet.sent, came) == (2, [PUBLIC], [])


async def test_redirects_between_public_servers_are_followed() -> None:
    """Catches a fetcher that is safe because it fetches nothing."""
    answers = {
        PUBLIC: httpx.Response(302, headers={"location": f"http://{OTHER_PUBLIC}/a.png"}),
        OTHER_PUBLIC: httpx.Response(200, stream=httpx.ByteStream(b"picture"), headers={"content-type": "image/png"}),
    }
    internet = ScriptedInternet(**answers)
    assert await UrlFetcher(OPEN, names(), internet)("http://good.example/", "field", 100) == b"picture"
    assert internet.sent == [PUBLIC, OTHER_PUBLIC]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "TEXT/PLAIN"])
async def test_what_is_no_medium_is_not_read(kind: str) -> None:
    """Catches pages and interfaces that are read for a stranger."""
    internet = ScriptedInternet(
        **{PUBLIC: httpx.Response(200, stream=httpx.ByteStream(b"secret"), headers={"content-type": kind})}
    )
    with pytest.raises(MediaError, match="expected a picture"):
        await UrlFetcher(OPEN, names(), internet)("http://good.example/", "field", 100)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"])
def test_public_addresses_are_public(address: str) -> None:
    """Catches a check that shuts out the internet, also where it is reached through NAT64."""
    assert is_public(address)
