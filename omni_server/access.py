"""Step 1. Lets a call in under its key, and says to everything below whose call it is. Knows no wire: each door asks it."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from omni_server.config import Settings
from omni_server.errors import Unauthenticated
from omni_server.keys import KeyFile
from omni_server.quotas import Account

BEARER = re.compile(r"bearer +([\x21-\x7e]+) *", re.IGNORECASE)

_account: ContextVar[Account | None] = ContextVar("account", default=None)


def current_account() -> Account | None:
    """Who pays for what is done here; None where nobody does."""
    return _account.get()


def current_owner() -> str:
    """Whose is what is made here; empty where nobody needs a key."""
    account = _account.get()
    return account.name if account is not None else ""


def bearer(authorization: str) -> str | None:
    """The key in an `Authorization` header, or in gRPC's metadata of that name."""
    found = BEARER.fullmatch(authorization)
    return found[1] if found else None


def is_address(host: str) -> bool:
    """Whether `host` is an IP address or this machine, not a name that anybody could have given it."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    return True


def is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


class Access:
    """One for all doors of a server, so that all count in the same ledger."""

    def __init__(self, keys: KeyFile | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Without `keys`, everyone may call."""
        self.open = keys is None
        self._keys = keys
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    @contextmanager
    def call(self, key: str | None) -> Iterator[None]:
        """One call under this key, while it lasts. Raises Unauthenticated, Forbidden or QuotaExceeded on entering."""
        if self._keys is None:
            yield
            return
        if key is None:
            raise Unauthenticated("there is no API key; expected the header `Authorization: Bearer KEY`")
        record = self._keys.find(key)
        if record is None:
            raise Unauthenticated("the API key is not known here; expected one that `omni-server keys add` has made")
        account = self._accounts.setdefault(record.name, Account(record.name, self._clock))
        account.limit(record.limits)
        with account.call():
            _account.set(account)
            try:
                yield
            finally:
                _account.set(None)  # not `reset`: a call may be let out in another context than it came in


def open_access(settings: Settings) -> Access:
    """Raises ConfigError where the keys file cannot be read."""
    return Access(KeyFile(settings.keys_file) if settings.keys_file is not None else None)
