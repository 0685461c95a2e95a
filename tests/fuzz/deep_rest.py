"""Requests over REST that are good but for one thing, also over several steps: they get past the door, to what is behind."""

from __future__ import annotations

import base64
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.fuzz.near import DEEP, NEAR_TEXTS, file_like, good_files, nudged
from tests.fuzz.shapes import ODD_TEXTS

TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
}
FEW = 6  # tokens of an answer: what is tried is how a request is read, not how long it is answered
VAD = '{"type":"server_vad","threshold":0.5}'
VOICES, CONSENTS = "/v1/audio/voices", "/v1/audio/voice_consents"


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


class DeepRest:
    """`borne` looks at an answer and names it."""

    def __init__(self, client: httpx.AsyncClient, model: str, voice: str, borne: Callable[[httpx.Response], str]) -> None:
        self._client, self._model, self._voice, self._borne = client, model, voice, borne

    async def __call__(self, chance: random.Random) -> str:
        flows: tuple[Callable[[random.Random], Awaitable[httpx.Response]], ...] = (
            self.chat, self.chat, self.completion, self.respond, self.respond, self.edit, self.draw, self.listen, self.listen,
            self.speak, self.clone, self.consent, self.look_up,
        )  # fmt: skip
        return self._borne(await chance.choice(flows)(chance))

    async def chat(self, chance: random.Random) -> httpx.Response:
        url = data_url(file_like("picture", chance), "image/png")
        sound = base64.b64encode(file_like("sound", chance)).decode()
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": "hello"},
            {"type": "image_url", "image_url": {"url": url, "detail": "auto"}},
            {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}},
            {"type": "video_url", "video_url": {"url": data_url(file_like("film", chance), "video/mp4")}},
        ]
        call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": chance.choice(("{}", *DEEP[:2]))}}
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "{}"},
            {"role": "user", "content": chance.sample(parts, chance.randrange(1, 3))},
        ]
        more = {
            "tools": [TOOL], "tool_choice": "auto", "temperature": 0.5, "top_p": 0.9, "seed": 1, "n": 1, "stop": ["x"],
            "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1}, "stream": True,
            "stream_options": {"include_usage": True},
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
            "modalities": ["text", "audio"], "audio": {"voice": self._voice, "format": "wav"}, "metadata": {"a": "b"},
            "presence_penalty": 0.1, "frequency_penalty": 0.1, "reasoning_effort": "low", "user": "a",
        }  # fmt: skip
        said = messages if chance.random() < 0.5 else messages[-1:]
        chosen = dict(chance.sample(sorted(more.items()), chance.randrange(4)))
        return await self._sent("/v1/chat/completions", {"messages": said, "max_tokens": FEW, **chosen}, chance)

    async def completion(self, chance: random.Random) -> httpx.Response:
        more = {
            "echo": True,
            "suffix": "a",
            "logprobs": 1,
            "stream": True,
            "n": 2,
            "stop": "a",
            "temperature": 0.0,
            "best_of": 1,
        }
        chosen = dict(chance.sample(sorted(more.items()), chance.randrange(3)))
        prompt: Any = chance.choice(("hello", [1, 2, 3], [[1, 2], [3]], ["a", "b"], [2**31], [-1]))
        return await self._sent("/v1/completions", {"prompt": prompt, "max_tokens": FEW, **chosen}, chance)

    async def respond(self, chance: random.Random) -> httpx.Response:
        """One that is kept, one that goes on from it with one thing wrong, and what is done with what is kept."""
        first = {"model": self._model, "input": "hello", "max_output_tokens": 16}
        kept = await self._client.post("/v1/responses", json=first)
        self._borne(kept)
        id = kept.json().get("id", "resp_0")
        try:
            url = data_url(file_like("picture", chance), "image/png")
            content = [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": url, "detail": "auto"}]
            called = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": chance.choice(("{}", *DEEP[:2]))}
            items: list[Any] = [
                {"type": "message", "role": "user", "content": content},
                called,
                {"type": "function_call_output", "call_id": "c1", "output": "{}"},
                {"type": "item_reference", "id": "msg_1"},
            ]
            body = {"input": chance.sample(items, chance.randrange(1, 4)), "previous_response_id": id, "store": False}
            more = {
                "text": {"format": {"type": "json_object"}},
                "stream": True,
                "reasoning": {"effort": "low"},
                "tools": [TOOL],
            }
            chosen = dict(chance.sample(sorted(more.items()), chance.randrange(3)))
            answer = await self._sent("/v1/responses", {**body, "max_output_tokens": 16, **chosen}, chance)
            self._borne(answer)
            look = chance.choice(("GET", "DELETE", "POST", "PUT"))
            tail = chance.choice(("", "/input_items", "/cancel", "?stream=true", "?include[]=x", "/..", "%00"))
            self._borne(await self._client.request(look, f"/v1/responses/{id}{tail}"))
        finally:
            gone = await self._client.delete(f"/v1/responses/{id}")
        self._borne(gone)
        again = await self._client.post("/v1/responses", json={**first, "previous_response_id": id})
        assert again.status_code in (400, 404, 503) or kept.status_code != 200, f"{again.status_code} for what is gone"
        return answer

    async def draw(self, chance: random.Random) -> httpx.Response:
        body = {
            "prompt": "a cat",
            "size": "128x128",
            "n": 1,
            "seed": 1,
            "output_format": "png",
            "partial_images": 1,
            "stream": True,
        }
        return await self._sent("/v1/images/generations", body, chance)

    async def edit(self, chance: random.Random) -> httpx.Response:
        fields = {"model": self._model, "prompt": "a cat", "size": "auto", "n": "1", "output_format": "png", "stream": "false"}
        files = [("image" if chance.random() < 0.7 else "image[]", ("a.png", file_like("picture", chance), "image/png"))]
        if chance.random() < 0.4:
            files.append((chance.choice(("mask", "image[]", "image")), ("m.png", file_like("picture", chance), "image/png")))
        path = chance.choice(("/v1/images/edits", "/v1/images/variations"))
        return await self._form(path, fields, files, chance)

    async def listen(self, chance: random.Random) -> httpx.Response:
        fields = {
            "model": self._model, "language": "en", "response_format": "verbose_json", "temperature": "0", "stream": "false",
            "timestamp_granularities[]": "segment",
            "chunking_strategy": chance.choice(("auto", VAD, VAD.replace("0.5", "9"), *DEEP[:2])),
        }  # fmt: skip
        kept = dict(chance.sample(sorted(fields.items()), chance.randrange(2, len(fields)))) | {"model": self._model}
        path = chance.choice(("/v1/audio/transcriptions", "/v1/audio/transcriptions", "/v1/audio/translations"))
        return await self._form(path, kept, [("file", ("a.wav", file_like("sound", chance), "audio/wav"))], chance)

    async def speak(self, chance: random.Random) -> httpx.Response:
        body = {"input": "hi", "voice": self._voice, "response_format": "wav", "speed": 1.0, "stream_format": "audio"}
        return await self._sent("/v1/audio/speech", body, chance)

    async def clone(self, chance: random.Random) -> httpx.Response:
        """A voice whose consent is good; then it is spoken with, and taken back."""
        recording = [("recording", ("c.wav", good_files()["sound"][0], "audio/wav"))]
        agreed = await self._client.post(CONSENTS, data={"name": "me", "language": "en-US"}, files=recording)
        self._borne(agreed)
        consent = agreed.json().get("id", "consent_0")
        fields = {"name": "mine", "consent": consent, "type": "audio_sample"}
        sample = [("audio_sample", ("v.wav", file_like("sound", chance), "audio/wav"))]
        made = await self._form(VOICES, fields, sample, chance)
        self._borne(made)
        if made.status_code == 200:
            voice = made.json()["id"]
            spoken = {"input": "hi", "voice": {"id": voice}, "response_format": "wav"}
            self._borne(await self._sent("/v1/audio/speech", spoken, chance))
            self._borne(await self._client.delete(f"{VOICES}/{voice}"))
        self._borne(await self._client.post(f"{CONSENTS}/{consent}", json=readable(nudged({"name": "you"}, chance))))
        self._borne(await self._client.delete(f"{CONSENTS}/{consent}"))
        return made

    async def consent(self, chance: random.Random) -> httpx.Response:
        recording = [("recording", ("c.wav", file_like("sound", chance), "audio/wav"))]
        made = await self._form(CONSENTS, {"name": "me", "language": "en-US"}, recording, chance)
        if made.status_code == 200:
            self._borne(await self._client.delete(f"{CONSENTS}/{made.json()['id']}"))
        query = {
            "after": chance.choice(("consent_1", *NEAR_TEXTS[:6])),
            "limit": chance.choice(("0", "1", "101", "-1", "x", "1e9")),
        }
        self._borne(await self._client.get(CONSENTS, params=query))
        return made

    async def look_up(self, chance: random.Random) -> httpx.Response:
        stem = chance.choice(("/v1/models/", "/v1/media/", "/v1/responses/", f"{VOICES}/", f"{CONSENTS}/", "/ready/"))
        name = chance.choice(("..%2f..%2fomni.json", "a" * 500, "%00", "%ff", "text", "x.png", "x%2ex", "…", *NEAR_TEXTS[:8]))
        return await self._client.request(chance.choice(("GET", "GET", "DELETE", "HEAD")), stem + name)

    async def _sent(self, path: str, body: dict[str, Any], chance: random.Random) -> httpx.Response:
        return await self._client.post(path, json=readable(nudged({"model": self._model, **body}, chance)))

    async def _form(self, path: str, fields: dict[str, str], files: list[Any], chance: random.Random) -> httpx.Response:
        if chance.random() < 0.6:
            name = chance.choice(list(fields))
            fields = {**fields, name: chance.choice((fields[name] + "x", "", "0", "-1", "1e9", *NEAR_TEXTS, *ODD_TEXTS))}
        if chance.random() < 0.05:
            files = []
        return await self._client.post(path, data=readable(fields), files=files)


def readable(document: Any) -> Any:
    """Without what JSON and UTF-8 cannot say: the other attacks send that."""
    match document:
        case dict():
            return {readable(str(name)): readable(value) for name, value in document.items()}
        case list():
            return [readable(value) for value in document]
        case str():
            return document.encode("utf-8", "replace").decode()
        case float() if document != document or document in (float("inf"), float("-inf")):
            return 0.5
        case _:
            return document
