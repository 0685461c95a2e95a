"""The clients' scripts with what is installed here, and the table that they have written. `make conformance` does the rest."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.conformance.run import CLIENTS, DOCUMENT, HERE, Result, document, environment, read_results, write_media
from tests.conftest import RealServer

ASKED = ("chat: streamed", "chat: a voice out", "errors", "realtime: spoken turn", "realtime: written turn", "realtime: items")


async def test_the_stock_client_that_is_installed(server: RealServer, tmp_path: Path) -> None:
    """Would catch a change that the table in the documents does not survive, without the other clients' environments."""
    write_media(tmp_path)
    told = {"OMNI_BASE_URL": server.url + "/v1", "OMNI_MODEL": "omni-tiny", "OMNI_MEDIA": str(tmp_path)}
    script = str(HERE / "clients" / "openai_python.py")
    ran = await asyncio.create_subprocess_exec(
        sys.executable, script, *ASKED, env={**environment(), **told}, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await ran.communicate()
    outcomes = {result.feature: (result.outcome, result.note) for result in read_results(printed.decode())}
    assert outcomes == dict.fromkeys(ASKED, ("works", ""))


def test_the_table_is_of_these_clients() -> None:
    """Would catch a client whose version was raised, or that was added, without running it."""
    header = next(line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| |"))
    assert [cell.strip() for cell in header.strip("|").split("|")[1:]] == [client.name for client in CLIENTS]


def test_how_the_table_is_written() -> None:
    """Would catch a failure that the table does not show, or a reason that it leaves out."""
    written = document({"a 1": [Result("chat", "works", ""), Result("images", "missing", "no `stream`")], "b 2": []})
    assert "| chat | works |  |" in written and "| images | missing |  |" in written
    assert "- a 1, images: missing. no `stream`" in written
