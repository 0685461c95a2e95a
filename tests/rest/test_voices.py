"""`/v1/audio/voices` and `/v1/audio/voice_consents`: the stock client makes a voice, speaks with it, and takes it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from omni_server.audio_format import encode
from omni_server.config import Settings
from omni_server.keys import Limits, add_key
from tests.doubles import ScriptedCheckpoint, ScriptedPipeline
from tests.rest.scripts import SAMPLE_RATE, done, door, served, tone, voice
from tests.rest.worded import MODEL, PROMPTS

VOICES, CONSENTS = "/v1/audio/voices", "/v1/audio/voice_consents"
WAV = encode("wav", tone(2.0), SAMPLE_RATE)


def cloning(clones: bool = True) -> ScriptedPipeline:
    pipeline = ScriptedPipeline(*voice(0, tone(0.5)), done())
    pipeline.checkpoint = ScriptedCheckpoint(prompts=PROMPTS, clones_voices=clones)
    return pipeline


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with served(cloning()) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def consent_to(client: openai.OpenAI, name: str = "me") -> str:
    return client.audio.voice_consents.create(language="en-US", name=name, recording=("c.wav", WAV)).id


def test_stock_client_makes_a_voice(client: openai.OpenAI) -> None:
    """Catches a voice that the client's types refuse, that is in no list, or that cannot be taken back."""
    made = client.audio.voices.create(audio_sample=("v.wav", WAV), consent=consent_to(client), name="mine", type="audio_sample")
    assert (made.object, made.name, made.type) == ("audio.voice", "mine", "audio_sample")
    listed = httpx.get(f"{client.base_url}audio/voices").json()
    assert [(each["id"], each["type"]) for each in listed["data"]] == [
        (made.id, "audio_sample"),
        ("mint", "built_in"),
        ("sage", "built_in"),
    ]
    spoken = client.audio.speech.create(model=MODEL, input="hello", voice={"id": made.id}, response_format="wav")
    assert spoken.content[:4] == b"RIFF"
    deleted = client.audio.voices.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "audio.voice.deleted")
    with pytest.raises(openai.NotFoundError):
        client.audio.voices.delete(made.id)


def test_stock_client_keeps_consents(client: openai.OpenAI) -> None:
    """Catches pages that repeat or lose a consent, a name that does not change, and voices that outlive their consent."""
    ids = [consent_to(client, str(number)) for number in range(5)]
    pages = client.audio.voice_consents.list(limit=2)
    assert [consent.id for consent in pages] == ids[::-1]  # the client asks for the next page by itself
    assert client.audio.voice_consents.update(ids[0], name="new").name == "new"
    kept = client.audio.voice_consents.retrieve(ids[0])
    assert (kept.name, kept.language, kept.object) == ("new", "en-US", "audio.voice_consent")
    client.audio.voices.create(audio_sample=("v.wav", WAV), consent=ids[0], name="mine")
    assert client.audio.voice_consents.delete(ids[0]).deleted
    assert len(httpx.get(f"{client.base_url}audio/voices").json()["data"]) == 2
    with pytest.raises(openai.NotFoundError):
        client.audio.voice_consents.retrieve(ids[0])


SAMPLE, RECORDING = {"audio_sample": ("v.wav", WAV)}, {"recording": ("c.wav", WAV)}
SHORT = {"audio_sample": ("v.wav", encode("wav", tone(0.3), SAMPLE_RATE))}


@pytest.mark.parametrize(
    ("path", "sent", "param", "expected"),
    [
        (VOICES, {"data": {"name": "a"}, "files": SAMPLE}, "consent", "missing"),
        (VOICES, {"data": {"name": "a", "consent": "cons_1"}, "files": SAMPLE}, "consent", "no consent `cons_1`"),
        (VOICES, {"data": {"name": " ", "consent": "cons_1"}, "files": SAMPLE}, "name", "white space"),
        (VOICES, {"data": {"name": "a", "consent": "cons_1", "type": "prompt"}, "files": SAMPLE}, "type", "'audio_sample'"),
        (VOICES, {"json": {"name": "a", "type": "prompt", "prompt": "warm"}}, "audio_sample", "not of a `prompt`"),
        (VOICES, {"data": {"name": "a", "consent": "cons_1"}, "files": SHORT}, "audio_sample", "`0.30` seconds"),
        (VOICES, {"data": {"name": "a"}, "files": {"audio_sample": ("v", b"no sound")}}, "consent", "missing"),
        (CONSENTS, {"data": {"name": "a", "language": "en"}, "files": {"recording": ("c", b"no sound")}}, "recording", "audio"),
        (CONSENTS, {"data": {"name": "a", "language": "english please"}, "files": RECORDING}, "language", "pattern"),
        (CONSENTS, {"data": {"name": "a", "language": "en"}, "files": SAMPLE}, "audio_sample", "`recording`"),
        (CONSENTS + "/cons_1", {"json": {"name": "a"}}, "consent", "no consent `cons_1`"),
        (CONSENTS + "/cons_1", {"json": {"title": "a"}}, "name", "missing"),
    ],
)
async def test_wrong_fields_are_named(path: str, sent: dict[str, Any], param: str, expected: str) -> None:
    """Catches a voice without a consent, and a wrong field that passes in silence, becomes a 5xx, or is not named."""
    async with door(cloning()) as client:
        response = await client.post(path, **sent)
    error = response.json()["error"]
    assert response.status_code == (404 if "no consent" in expected else 400), error
    assert error["param"] == param
    assert expected in error["message"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "after=cons_1", "order=asc"])
async def test_wrong_pages_are_refused(query: str) -> None:
    """Catches a page that is not the one that was asked for."""
    async with door(cloning()) as client:
        assert (await client.get(f"{CONSENTS}?{query}")).status_code == 400


async def test_each_key_has_its_own_voices(tmp_path: Path) -> None:
    """Catches a caller who lists or deletes the voices of another, or makes one on another's consent."""
    ann, bob = ({"authorization": f"Bearer {add_key(tmp_path / 'keys', name, Limits())}"} for name in ("ann", "bob"))
    async with door(cloning(), Settings(keys_file=tmp_path / "keys")) as client:
        consent = await client.post(CONSENTS, data={"name": "a", "language": "en"}, files=RECORDING, headers=ann)
        form: dict[str, Any] = {"data": {"name": "a", "consent": consent.json()["id"]}, "files": SAMPLE}
        made = (await client.post(VOICES, **form, headers=ann)).json()["id"]
        assert (await client.post(VOICES, **form, headers=bob)).status_code == 404
        assert (await client.delete(f"{VOICES}/{made}", headers=bob)).status_code == 404
        for headers, own in ((ann, 1), (bob, 0)):
            assert len((await client.get(CONSENTS, headers=headers)).json()["data"]) == own
            assert [each["id"] for each in (await client.get(VOICES, headers=headers)).json()["data"]].count(made) == own
        assert (await client.get(VOICES)).status_code == 401


async def test_a_checkpoint_that_clones_no_voices_says_so() -> None:
    """Catches a voice that is accepted and never heard; the voices there are can still be listed."""
    async with door(cloning(clones=False)) as client:
        for path in (VOICES, CONSENTS):
            response = await client.post(path, data={"name": "a"}, files=SAMPLE)
            assert response.status_code == 400
            assert "no `voice_cloner`" in response.json()["error"]["message"]
            assert "`mint`, `sage`" in response.json()["error"]["message"]
        assert [each["id"] for each in (await client.get(VOICES)).json()["data"]] == ["mint", "sage"]


async def test_openapi_tells_pages_and_forms() -> None:
    """Catches a generated client that cannot turn the page, or does not know what to send."""
    async with door(cloning()) as client:
        document = (await client.get("/openapi.json")).json()
    paths = document["paths"]
    assert {each["name"] for each in paths[CONSENTS]["get"]["parameters"]} == {"after", "limit"}
    form = paths[VOICES]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    shape = document["components"]["schemas"][form["$ref"].split("/")[-1]]
    assert shape["required"] == ["audio_sample", "name", "consent"]
