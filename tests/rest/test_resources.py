"""Models, health, and the one shape of all errors."""

import pytest

from omni_server.config import Settings
from tests.doubles import ScriptedPipeline
from tests.rest.scripts import ask, done, door, words


async def test_models() -> None:
    """Catches a list that stock clients cannot read, or a name that cannot be asked for again."""
    async with door(ScriptedPipeline(), Settings(served_name="naver/omni")) as client:
        listed = (await client.get("/v1/models")).json()
        one = (await client.get("/v1/models/naver/omni")).json()
        unknown = await client.get("/v1/models/gpt-9")
    assert listed == {"object": "list", "data": [one]}
    assert (one["id"], one["object"], one["omni"]["voices"]) == ("naver/omni", "model", ["mint", "sage"])
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("modalities", "status", "word"),
    [
        ({"text": True, "image": True}, 200, "ready"),
        ({"text": True, "image": False}, 200, "degraded"),
        ({"text": False, "image": True}, 503, "unavailable"),
    ],
)
async def test_ready(modalities: dict[str, bool], status: int, word: str) -> None:
    """Catches a server that is taken out of rotation because one picture stage is down."""
    async with door(ScriptedPipeline(modalities=modalities)) as client:
        response = await client.get("/ready")
        assert (await client.get("/ready/image")).status_code == (200 if modalities["image"] else 503)
        assert (await client.get("/ready/smell")).status_code == 404
    assert (response.status_code, response.json()) == (status, {"status": word, "modalities": modalities})


async def test_health_does_not_ask_the_engine() -> None:
    """Catches a liveness probe that restarts a server which is only busy."""
    async with door(ScriptedPipeline(modalities={"text": False})) as client:
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v2", 404), ("GET", "/v1/chat/completions", 405)])
async def test_router_errors_have_the_shape(method: str, path: str, status: int) -> None:
    """Catches `{"detail": …}`, which stock clients show as an empty error."""
    async with door(ScriptedPipeline()) as client:
        response = await client.request(method, path)
    assert response.status_code == status
    error = response.json()["error"]
    assert path in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


async def test_a_bug_of_ours_is_a_500_in_the_shape() -> None:
    """Catches a traceback, or no id, in the answer to a fault that nobody foresaw."""
    async with door(ScriptedPipeline(RuntimeError("secret"))) as client:
        response = await client.post("/v1/chat/completions", json=ask(), headers={"x-request-id": "mine"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "`mine`" in response.json()["error"]["message"]
    assert response.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("given", [None, "trace-1", "bad id", "x" * 500])
async def test_request_ids(given: str | None) -> None:
    """Catches answers that cannot be found in the log, and ids that could forge a log line."""
    async with door(ScriptedPipeline(*words(0, "Hi"), done())) as client:
        headers = {} if given is None else {"x-request-id": given}
        for response in (
            await client.get("/health", headers=headers),
            await client.post("/v1/chat/completions", json=ask(stream=True), headers=headers),
            await client.get("/nothing", headers=headers),
        ):
            request_id = response.headers["x-request-id"]
            assert request_id == given if given == "trace-1" else request_id.startswith("req_")


async def test_openapi_tells_the_body() -> None:
    """Catches a schema without the request, which generated clients and /docs live on."""
    async with door(ScriptedPipeline()) as client:
        document = (await client.get("/openapi.json")).json()
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert "messages" in document["components"]["schemas"][name]["properties"]
