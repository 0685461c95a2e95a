"""Step 1: API keys in a file, and what their callers may use."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from omni_server.access import Access, bearer, is_loopback
from omni_server.cli import main
from omni_server.config import read_settings
from omni_server.errors import ConfigError, Forbidden, QuotaExceeded, Unauthenticated
from omni_server.keys import KeyFile, Limits, add_key, hash_of, read_keys
from omni_server.quotas import Account
from omni_server.types import Modality
from tests.doubles import HandClock

SPEAKS = frozenset({Modality.TEXT, Modality.AUDIO})


def account(**limits: float) -> tuple[Account, HandClock]:
    clock = HandClock()
    made = Account("ann", clock)
    made.limit(Limits(**limits))  # type: ignore[arg-type]
    return made, clock


def wait_of(made: Account, modalities: frozenset[Modality] = SPEAKS) -> float:
    with pytest.raises(QuotaExceeded) as caught:
        made.admit(modalities)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_a_key_is_made_found_and_kept_as_a_hash(tmp_path: Path) -> None:
    """Catches a file from which keys can be stolen, and a file that others on the machine may read."""
    path = tmp_path / "keys"
    key, other = add_key(path, "ann", Limits(requests_per_minute=5)), add_key(path, "bob", Limits())
    assert key not in path.read_text() and path.stat().st_mode & 0o077 == 0
    keys = KeyFile(path)
    found = keys.find(key)
    assert found is not None and (found.name, found.limits.requests_per_minute) == ("ann", 5)
    assert keys.find(other) is not None and keys.find(key + "x") is None and keys.find(hash_of(key)) is None


def test_keys_are_changed_while_the_server_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a key that works on after it was struck out, and a typing error that locks everybody out."""
    path = tmp_path / "keys"
    old = add_key(path, "ann", Limits())
    keys = KeyFile(path)
    new = add_key(path, "ann", Limits())
    assert keys.find(old) and keys.find(new)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if hash_of(old) not in line))
    assert keys.find(old) is None and keys.find(new)
    path.write_text("{")
    assert keys.find(new) and "stay as they were" in caplog.text
    path.unlink()
    assert keys.find(new)


def test_a_key_added_to_a_file_without_a_last_newline_is_a_line_of_its_own(tmp_path: Path) -> None:
    """Catches two keys that are lost in one broken line."""
    path = tmp_path / "keys"
    add_key(path, "ann", Limits())
    path.write_text(path.read_text().strip())
    add_key(path, "bob", Limits())
    assert {record.name for record in read_keys(path).values()} == {"ann", "bob"}


def test_keys_of_one_name_share_its_limits(tmp_path: Path) -> None:
    """Catches a caller who gets a fresh quota by alternating between two keys."""
    path = tmp_path / "keys"
    add_key(path, "ann", Limits(concurrency=2))
    add_key(path, "ann", Limits())
    assert {record.limits for record in read_keys(path).values()} == {Limits(concurrency=2)}
    with pytest.raises(ConfigError, match="share its limits"):
        add_key(path, "ann", Limits(concurrency=3))
    path.write_text(path.read_text().replace('"concurrency": 2', '"concurrency": 3', 1))
    with pytest.raises(ConfigError, match="share its limits"):
        KeyFile(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sk-omni-secret", "no JSON object"),
        ('["a"]', "no JSON object"),
        ('{"name": "a b", "sha256": "00"}', "the name `a b`"),
        ('{"name": "a", "sha256": "sk-omni-secret"}', "64 hexadecimal"),
        ('{"name": "a", "sha256": "%s", "rpm": 1}' % ("0" * 64), "the limit `rpm`"),
        ('{"name": "a", "sha256": "%s", "concurrency": "2"}' % ("0" * 64), "a number of at least 0"),
        ('{"name": "a", "sha256": "%s", "images_per_minute": NaN}' % ("0" * 64), "a number of at least 0"),
        ('{"name": "a", "sha256": "%s", "images_per_minute": true}' % ("0" * 64), "a number of at least 0"),
    ],
)
def test_a_bad_line_is_told_by_its_number_and_not_by_its_text(tmp_path: Path, line: str, says: str) -> None:
    """Catches a key that an operator pasted into the file and that then stands in the log."""
    path = tmp_path / "keys"
    path.write_text(f"\n{line}\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        KeyFile(path)
    assert says in caught.value.message and "secret" not in caught.value.message


def test_the_command_prints_the_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a key with something beside it, which a script then sends too."""
    path = tmp_path / "keys"
    assert main(["keys", "add", "ann", "--keys-file", str(path), "--images-per-minute", "3"]) == 0
    key = capsys.readouterr().out.strip()
    found = KeyFile(path).find(key)
    assert found is not None and found.limits == Limits(images_per_minute=3)
    assert json.loads(path.read_text())["name"] == "ann"
    assert main(["keys", "add", "a b", "--keys-file", str(path)]) == 2
    assert "a b" in capsys.readouterr().err


def test_a_missing_file_refuses_to_start(tmp_path: Path) -> None:
    """Catches a server that is open because its keys were not there."""
    with pytest.raises(ConfigError, match="--keys-file"):
        KeyFile(tmp_path / "nothing")


def test_what_is_used_is_refilled_evenly_and_the_wait_is_true() -> None:
    """Catches a Retry-After after which the same request is refused again, or that is longer than it need be."""
    ann, clock = account(tokens_per_minute=60)
    ann.admit(SPEAKS)
    ann.use("tokens_per_minute", 90)  # a reply is let in before it is known how long it gets
    wait = wait_of(ann)
    assert wait == pytest.approx(31)
    clock.now += wait - 0.1
    wait_of(ann)
    clock.now += 0.1
    ann.admit(SPEAKS)
    clock.now += 3600
    ann.use("tokens_per_minute", 60)
    wait_of(ann)


def test_each_modality_has_its_own_quota() -> None:
    """Catches a caller who may no longer write because they have drawn."""
    ann, _ = account(audio_seconds_per_minute=30, images_per_minute=1)
    ann.use("images_per_minute", 1)
    ann.admit(SPEAKS)
    assert wait_of(ann, frozenset({Modality.IMAGE})) == pytest.approx(60)
    ann.use("audio_seconds_per_minute", 45)
    assert wait_of(ann) == pytest.approx(32)
    ann.admit(frozenset({Modality.TEXT}))


def test_zero_forbids_and_is_not_to_be_tried_again() -> None:
    """Catches a client that repeats for ever what it may never do."""
    ann, _ = account(images_per_minute=0)
    with pytest.raises(Forbidden, match="images_per_minute"):
        ann.admit(frozenset({Modality.IMAGE}))
    for limit in ("requests_per_minute", "concurrency"):
        with pytest.raises(Forbidden, match=limit), account(**{limit: 0})[0].call():
            pass


def test_calls_at_the_same_time_are_counted_and_given_back() -> None:
    """Catches a slot that a failed call keeps, and a wait that has nothing to do with how long calls take."""
    ann, clock = account(concurrency=1)
    with pytest.raises(RuntimeError), ann.call():
        clock.now += 8
        raise RuntimeError
    with ann.call():
        with pytest.raises(QuotaExceeded, match="`1` calls under way") as caught, ann.call():
            pass
        assert caught.value.retry_after == pytest.approx(8)
    with ann.call():
        assert ann.open == 1


def test_a_limit_that_stays_keeps_its_state_when_another_changes() -> None:
    """Catches a file that is touched each minute and thereby lifts every quota."""
    ann, _ = account(tokens_per_minute=60)
    ann.use("tokens_per_minute", 60)
    ann.limit(Limits(tokens_per_minute=60, concurrency=3))
    wait_of(ann)
    ann.limit(Limits(concurrency=3))
    ann.admit(SPEAKS)


def test_every_key_of_a_name_counts_in_one_ledger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches twice the quota for two keys, and a key that is logged."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "keys"
    first, second = add_key(path, "ann", Limits(requests_per_minute=1)), add_key(path, "ann", Limits())
    access = Access(KeyFile(path), HandClock())
    with access.call(first):
        pass
    with pytest.raises(QuotaExceeded) as caught, access.call(second):
        pass
    assert caught.value.retry_after == pytest.approx(60)
    for wrong in (None, "", "sk-omni-wrong"):
        with pytest.raises(Unauthenticated) as refused, access.call(wrong):
            pass
        assert not wrong or wrong not in refused.value.message
    assert not [key for key in (first, second, "sk-omni-wrong") if key in caplog.text]


@pytest.mark.parametrize(
    ("header", "key"),
    [("Bearer a", "a"), ("bearer  a ", "a"), ("a", None), ("Basic a", None), ("Bearer a b", None), ("", None)],
)
def test_bearer(header: str, key: str | None) -> None:
    """Catches a scheme that is told by its capitals, and a key with a blank in it."""
    assert bearer(header) == key


def test_loopback_and_origins_are_told() -> None:
    """Catches a server that is open to the network without a word, and an origin that can never match."""
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "a.example")] == [True] * 3 + [
        False
    ] * 3
    assert read_settings({"allowed_origins": "https://A.example, *"}, {}).allowed_origins == ("https://a.example", "*")
    with pytest.raises(ConfigError, match="--allowed-origins"):
        read_settings({"allowed_origins": "a.example/chat"}, {})
