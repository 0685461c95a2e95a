"""The command line: flags of `serve` and `doctor` are the fields of `config.Settings`; `chat`, `draw`, ... are the SDK's."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from types import FrameType
from typing import TYPE_CHECKING, Any

import omni_client.cli
from omni_server import __version__
from omni_server.access import is_loopback, open_access
from omni_server.config import Settings, flag_of, read_settings, variable_of
from omni_server.errors import OmniError
from omni_server.logs import set_up

if TYPE_CHECKING:
    import uvicorn

OPEN_WARNING = (
    "omni-server: WARNING: `{host}` is open to the network and has no --keys-file: whoever reaches it may use it. "
    "`omni-server keys add NAME --keys-file FILE` makes a key"
)


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    if parsed.command in omni_client.cli.COMMANDS:
        return omni_client.cli.run(parsed, "omni-server")
    given = vars(parsed)
    command = given.pop("command")
    try:
        if command in ("convert", "inspect", "keys"):
            from omni_server import offline

            return offline.run(command, given)
        settings = read_settings({name: text for name, text in given.items() if text is not None}, os.environ)
        if command == "doctor":
            from omni_server.doctor import examine

            return examine(settings)
        set_up(settings.log_format, settings.log_level)
        _stop_like_interrupt()
        asyncio.run(serve(settings))
    except OmniError as problem:
        print(f"omni-server: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass  # stopping is how a server ends
    return 0


async def serve(settings: Settings) -> None:
    """Builds everything, answers until it is told to stop, lets running replies end, closes everything."""
    try:
        from omni_server.app import build_app, open_ears, open_pipeline, open_rpc
        from omni_server.serving import Server, settle
    except ImportError as missing:
        raise OmniError(f"this installation cannot serve: {missing}; `omni-server doctor` tells what is missing") from missing

    access = open_access(settings)
    if access.open and not is_loopback(settings.host):
        print(OPEN_WARNING.format(host=settings.host), file=sys.stderr, flush=True)
    print(f"omni-server is loading {settings.checkpoint} ...", flush=True)
    async with (
        open_pipeline(settings) as pipeline,
        open_ears(settings) as ears,
        open_rpc(pipeline, settings, ears, access) as rpc,
    ):
        config = rest_config(build_app(pipeline, settings, ears, access), settings)
        settle()
        try:
            await Server(config, rpc, pipeline.drain, settings.shutdown_seconds).serve()
        except SystemExit as failed:
            raise OmniError(f"cannot listen on {settings.host}:{settings.port}") from failed


def rest_config(app: Any, settings: Settings) -> uvicorn.Config:
    """How the REST door listens: where, and behind which certificate."""
    import uvicorn

    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _stop_like_interrupt() -> None:
    """SIGTERM, as containers send it, ends the server the way Ctrl-C does, also while a model is still loading.

    A handler of our own, because asyncio replaces Python's default one by cancelling the task that closes the pipeline.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="omni-server", description="An any-to-any server with OpenAI's API.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, does in (
        ("serve", "serve a checkpoint"),
        ("doctor", "say what this machine can and cannot run, and why"),
    ):
        command = commands.add_parser(name, help=does, description=does, allow_abbrev=False)
        for setting in fields(Settings):
            plain = isinstance(setting.default, str | int | float)
            shown_default = f"; default {str(setting.default).lower()}" if plain else ""
            described = f"{setting.metadata['help']} ({variable_of(setting)}{shown_default})".replace("%", "%%")
            if isinstance(setting.default, bool):
                command.add_argument(flag_of(setting), nargs="?", const="true", metavar="VALUE", help=described)
            else:
                command.add_argument(flag_of(setting), metavar="VALUE", help=described)
    omni_client.cli.add_commands(commands)
    from omni_server.offline import add_commands

    add_commands(commands)
    return parser
