"""What people forget to keep alike: sync and async, what is exported, which events there are."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

import omni_client
from omni_client import (
    AsyncCall,
    AsyncOmniClient,
    AsyncReplyStream,
    Call,
    CallWishes,
    Event,
    Generation,
    OmniClient,
    ReplyStream,
    Wishes,
    errors,
)
from omni_server import types

DUNDERS = {"__enter__": "__aenter__", "__exit__": "__aexit__", "__iter__": "__aiter__", "__next__": "__anext__"}


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_") or name in DUNDERS}


@pytest.mark.parametrize(("sync", "other"), [(OmniClient, AsyncOmniClient), (ReplyStream, AsyncReplyStream), (Call, AsyncCall)])
def test_sync_and_async_have_the_same_face(sync: type, other: type) -> None:
    """Catches a method, an argument, a default or a promise that one of the two lacks."""
    assert {name for name in vars(other) if not name.startswith("_")} == {
        name for name in vars(sync) if not name.startswith("_")
    }
    for name, ours in public(sync).items():
        theirs = vars(other)[DUNDERS.get(name, name)]
        if isinstance(ours, property):
            assert isinstance(theirs, property), name
            continue
        signatures = [inspect.signature(method) for method in (ours, theirs)]
        assert [p.replace(annotation="") for p in signatures[0].parameters.values()] == [
            p.replace(annotation="") for p in signatures[1].parameters.values()
        ], name
        told = [str(signature).replace("Async", "").replace("Awaitable", "") for signature in signatures]
        assert told[0] == told[1], name
        if name not in DUNDERS:
            assert ours.__doc__ and ours.__doc__.split()[:4] == theirs.__doc__.replace("async ", "").split()[:4], name


def test_exports() -> None:
    """Catches a name that the documentation uses and nobody can import, and one that was not meant to be public."""
    names = {name for name, value in vars(omni_client).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert names == set(omni_client.__all__)
    assert list(omni_client.__all__) == sorted(omni_client.__all__)
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__}
    assert tree <= set(omni_client.__all__)
    assert all(name in (errors.__doc__ or "") for name in tree)


def test_every_public_name_says_what_it_is() -> None:
    """Catches a public class or method without a docstring."""
    for name in omni_client.__all__:
        value = getattr(omni_client, name)
        if not isinstance(value, type):
            continue
        assert value.__doc__ and not value.__doc__.startswith(f"{name}("), name
        for method in public(value):
            told = inspect.getattr_static(value, method)
            if method not in DUNDERS and (inspect.isfunction(told) or isinstance(told, property | classmethod)):
                assert getattr(value, method).__doc__, f"{name}.{method}"


def test_events_are_those_of_the_server() -> None:
    """Catches an event that the server learns to send and the SDK does not know."""
    ours = {kind.__name__ for kind in typing.get_args(Event)}
    theirs = {kind.__name__ for kind in typing.get_args(types.Event)}
    not_on_the_wire = {"Failed", "ImageProgress"}  # a failure is raised
    assert theirs - not_on_the_wire <= ours
    assert all(kind.__dataclass_params__.frozen for kind in typing.get_args(Event))


def test_wishes() -> None:
    """Catches a wish that `generate` has and `stream` lacks, or one that its docstring does not explain."""
    assert Generation.__optional_keys__ - Wishes.__optional_keys__ == {"audio_format"}
    for wishes in (Wishes, CallWishes):
        assert all(name in (wishes.__doc__ or "") for name in wishes.__optional_keys__)
