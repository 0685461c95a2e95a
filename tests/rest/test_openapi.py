"""`GET /openapi.json` is true: every reference resolves, and whatever it allows to be sent is answered, never with a 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import content_type_conformance, not_a_server_error

from omni_server.config import Settings
from omni_server.rest import create_app
from omni_server.rest.openapi import Shapes
from tests.doubles import ScriptedPipeline
from tests.rest.scripts import done, picture, tone, voice, words
from tests.rest.worded import worded

EXAMPLES = 5
CHECKS = [not_a_server_error, content_type_conformance]


def pipeline() -> ScriptedPipeline:
    return worded(*words(0, "A fox."), *picture(1), *voice(2, tone(0.1)), done())


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_nothing_is_a_fault_of_ours(mode: GenerationMode) -> None:
    """Would catch a body that the document allows, or almost allows, and that ends in a traceback; and an answer of another
    kind than the document tells."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(pipeline(), Settings()))
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # any letters are a path

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def answers(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        answers()


def document() -> dict[str, Any]:
    told: dict[str, Any] = create_app(ScriptedPipeline(), Settings()).openapi()
    return told


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_resolves() -> None:
    """Would catch `$defs` of a body that stand where nobody looks for them."""
    told = document()
    assert "$defs" not in json.dumps(told)
    found = set(references(told))
    assert len(found) > 20
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in told["components"]["schemas"]


def test_errors_are_told_at_every_path() -> None:
    """Would catch a path whose refusals nobody expects, and FastAPI's own, which are never sent."""
    operations = [operation for path in document()["paths"].values() for operation in path.values()]
    assert all("default" in operation["responses"] and "422" not in operation["responses"] for operation in operations)


def test_two_shapes_of_one_name() -> None:
    """Would catch a shape of one resource under the name of another's."""
    shapes = Shapes()
    for title, kind in (("A", "string"), ("B", "integer"), ("C", "string")):
        inner = {"Tool": {"type": kind}, "Box": {"$ref": "#/$defs/Tool"}}
        shapes.lift({"title": title, "items": {"$ref": "#/$defs/Box"}, "$defs": inner})
    assert shapes.named["A"]["items"] == shapes.named["C"]["items"] == {"$ref": "#/components/schemas/Box"}
    assert shapes.named["B"]["items"] == {"$ref": "#/components/schemas/BBox"}
    assert shapes.named["BBox"] == {"$ref": "#/components/schemas/BTool"}
    assert (shapes.named["Tool"], shapes.named["BTool"]) == ({"type": "string"}, {"type": "integer"})
