"""Pictures that an answer names by URL, and `GET /v1/media/{name}`, which hands them out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import PIL.Image
import pytest
from moto.server import ThreadedMotoServer

from omni_server.config import Settings
from omni_server.keys import Limits, add_key
from tests.rest.scripts import done, door, picture, served, words
from tests.rest.worded import worded
from tests.test_media_store import files_in

URL = "/v1/images/generations"
REPLY = [*words(0, "a fox"), *picture(1), done()]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """S3-compatible storage on loopback; gives the URL of a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    for name, value in (keys | {"AWS_ENDPOINT": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true"}).items():
        monkeypatch.setenv(name, value)
    assert httpx.put(f"http://{host}:{port}/pictures").status_code == 200
    yield f"http://{host}:{port}/pictures"
    server.stop()


def test_stock_client_gets_a_url() -> None:
    """Catches a URL that leads nowhere, to another file, or to one of another kind."""
    with served(worded(*REPLY)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = client.images.generate(prompt="fox", n=2, response_format="url", output_format="webp", size="32x32")
        assert answer.data is not None
        urls = [image.url or "" for image in answer.data]
        files = [httpx.get(each) for each in urls]
        head = httpx.head(urls[0])
    assert all(each.startswith(f"{url}/v1/media/") and each.endswith(".webp") for each in urls)
    assert len(set(urls)) == 2
    assert [image.b64_json for image in answer.data] == [None, None]
    assert {file.headers["content-type"] for file in files} == {"image/webp"}
    assert {file.headers["x-content-type-options"] for file in files} == {"nosniff"}
    assert {PIL.Image.open(io.BytesIO(file.content)).size for file in files} == {(32, 32)}
    assert (head.status_code, head.content) == (200, b"")


async def test_whoever_has_the_name_needs_no_key(tmp_path: Path) -> None:
    """Catches a picture that a web page cannot show, because the page has no API key."""
    headers = {"authorization": f"Bearer {add_key(tmp_path / 'keys', 'ann', Limits())}"}
    async with door(worded(*REPLY), Settings(keys_file=tmp_path / "keys")) as client:
        body = (await client.post(URL, json={"prompt": "fox", "response_format": "url"}, headers=headers)).json()
        assert (await client.get(body["data"][0]["url"])).status_code == 200


async def test_a_deployment_says_how_clients_reach_it() -> None:
    """Catches URLs that only hold behind the proxy that clients stand before."""
    async with door(worded(*REPLY), Settings(public_url="https://omni.example")) as client:
        body = (await client.post(URL, json={"prompt": "fox", "response_format": "url"})).json()
    assert body["data"][0]["url"].startswith("https://omni.example/v1/media/")


@pytest.mark.parametrize("name", ["nothing.png", "..%2f..%2fetc%2fpasswd", "%00"])
async def test_other_names_are_not_found(name: str) -> None:
    """Catches a way out of the folder, or a 5xx where there is nothing."""
    async with door(worded(*REPLY)) as client:
        response = await client.get(f"/v1/media/{name}")
    assert response.status_code == 404
    assert response.headers["x-should-retry"] == "false"


async def test_a_file_larger_than_the_store_is_refused(tmp_path: Path) -> None:
    """Catches a file that is written past the bound, or one that empties the store for nothing."""
    async with door(worded(*REPLY), Settings(media_store=str(tmp_path), media_store_bytes=10)) as client:
        response = await client.post(URL, json={"prompt": "fox", "response_format": "url"})
    assert response.status_code == 413
    assert response.json()["error"]["param"] == "response_format"
    assert not files_in(tmp_path)


def test_in_a_bucket(bucket: str) -> None:
    """Catches URLs that the storage refuses, a file without its type, and one that stays when the server has gone."""
    with served(worded(*REPLY), Settings(media_store="s3://pictures/omni")) as url:
        body = httpx.post(url + URL, json={"prompt": "fox", "response_format": "url"}).json()
        link = body["data"][0]["url"]
        direct = httpx.get(link)
        through = httpx.get(f"{url}/v1/media/{link.partition('?')[0].rpartition('/')[2]}")
    assert link.startswith(f"{bucket}/omni/")
    assert direct.headers["content-type"] == "image/png"
    assert direct.content == through.content
    assert PIL.Image.open(io.BytesIO(direct.content)).size == (8, 6)
    assert httpx.get(link).status_code == 404


async def test_storage_that_refuses_is_told(bucket: str) -> None:
    """Catches a URL to nothing where storing failed, and a traceback in the answer."""
    async with door(worded(*REPLY), Settings(media_store="s3://missing")) as client:
        response = await client.post(URL, json={"prompt": "fox", "response_format": "url"})
    assert response.status_code == 503
    assert "could not be stored" in response.json()["error"]["message"]
