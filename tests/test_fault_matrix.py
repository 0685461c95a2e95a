"""Every step of a request killed, hung, slowed and spoilt, on every door: each ends exactly once, and as the table says."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import grpc
import httpx
import PIL.Image
import pytest

from omni.v1 import content_pb2, omni_service_pb2
from omni_server.backoff import Backoff
from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.config import Settings
from omni_server.fetch import UrlFetcher
from omni_server.maker import Maker
from omni_server.media import MediaLoader
from omni_server.pipeline import Pipeline
from omni_server.prompt import Prompter
from omni_server.rest import create_app
from omni_server.revival import Revival
from omni_server.senses import Sense
from omni_server.text import TextCodec
from omni_server.types import Modality
from tests.doubles import Lever, LeveredBackbone, LeveredDecoder, LeveredEye, LeveredLoader, LeveredPrompter
from tests.facts import write_checkpoint
from tests.media_samples import png_of
from tests.rpc.doors import Client, error_info, rpc_client
from tests.test_pipeline import END, picture, speech

LIMIT = 0.5  # seconds after which what hangs is given up; where nothing hangs there is time enough
PICTURE = png_of(PIL.Image.new("RGB", (8, 8), "red"))

# How a request ends by step and fault: `whole`; `part CODE`, where one span says so in its place; or the code of its error.
OUTCOMES = {
    "load": {"kill": "internal_error", "hang": "stalled", "corrupt": "invalid_media"},
    "encode": {"kill": "encode_failed", "hang": "modality_down", "corrupt": "encode_failed"},
    "look up": {"kill": "encode_failed", "hang": "modality_down", "corrupt": "encode_failed"},
    "prompt": {"kill": "internal_error", "hang": "stalled", "corrupt": "internal_error"},
    "backbone 0": {"kill": "engine_unavailable", "hang": "engine_unavailable", "corrupt": "internal_error"},
    "backbone 1": {"kill": "engine_unavailable", "hang": "engine_unavailable", "corrupt": "internal_error"},
    "backbone 3": {"kill": "engine_unavailable", "hang": "engine_unavailable", "corrupt": "internal_error"},
    "audio open": {"kill": "part decode_failed", "hang": "part modality_down"},
    "audio feed": {"kill": "part decode_failed", "hang": "part modality_down", "corrupt": "part decode_failed"},
    "audio finish": {"kill": "part decode_failed", "hang": "part modality_down", "corrupt": "part decode_failed"},
    "image open": {"kill": "part decode_failed", "hang": "part modality_down"},
    "image feed": {"kill": "part decode_failed", "hang": "part modality_down", "corrupt": "part decode_failed"},
    "image finish": {"kill": "part decode_failed", "hang": "part modality_down", "corrupt": "part decode_failed"},
}
CASES = [(step, fault, outcome) for step, faults in OUTCOMES.items() for fault, outcome in ({"slow": "whole"} | faults).items()]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("mini")
    write_checkpoint(root)
    return read_checkpoint(root)


def levered(checkpoint: Checkpoint, lever: Lever) -> Pipeline:
    """Says a word, draws, speaks, and says a word again."""
    codec, settings, eye = TextCodec(checkpoint.folders["backbone"] / "tokenizer.json"), Settings(), LeveredEye(lever)
    limit = LIMIT if lever.fault == "hang" else 20.0
    misplaced = checkpoint.bands[Modality.IMAGE].close
    words: Any = [[104, 105], picture(checkpoint), speech(checkpoint, 1, 2), [104, END]]
    makers = {m: Maker(m, LeveredDecoder(m, lever), 6, seconds=limit) for m in (Modality.AUDIO, Modality.IMAGE)}
    return Pipeline(
        checkpoint=checkpoint,
        loader=LeveredLoader(MediaLoader(settings.media_limits, UrlFetcher(settings.url_policy)), lever),
        senses={Modality.IMAGE: Sense(Modality.IMAGE, eye.encoder, eye.codebook, seconds=limit)},
        prompter=LeveredPrompter(Prompter(checkpoint, codec), lever),  # type: ignore[arg-type]
        backbone=Revival(lambda: LeveredBackbone(lever, misplaced, *words), limit, Backoff()),
        codec=codec,
        makers=makers,
        end_of_turn=[END],
        stage_seconds=limit,
    )


def body(checkpoint: Checkpoint, **more: Any) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "hi"}]
    wanted = {"modalities": ["text", "image", "audio"], "audio": {"voice": checkpoint.voices[0], "format": "pcm16"}}
    return {"model": checkpoint.name, "messages": [{"role": "user", "content": content}]} | wanted | more


def as_a_whole(codes: list[str]) -> str:
    return f"part {codes[0]}" if codes else "whole"


async def plain(http: httpx.AsyncClient, checkpoint: Checkpoint) -> str:
    reply = await http.post("/v1/chat/completions", json=body(checkpoint))
    document = reply.json()
    assert (reply.status_code == 200) == ("choices" in document) != ("error" in document)
    if reply.status_code != 200:
        return str(document["error"]["code"])
    segments = document["choices"][0]["message"]["omni"]["segments"]
    return as_a_whole([segment["error"]["code"] for segment in segments if segment.get("error")])


async def streamed(http: httpx.AsyncClient, checkpoint: Checkpoint) -> str:
    reply = await http.post("/v1/chat/completions", json=body(checkpoint, stream=True))
    if reply.status_code != 200:
        return str(reply.json()["error"]["code"])
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    endings = [line for line in lines if line == "[DONE]" or "error" in json.loads(line)]
    assert len(endings) == 1 and endings[0] == lines[-1]
    return "done" if endings == ["[DONE]"] else str(json.loads(endings[0])["error"]["code"])


async def called(client: Client, checkpoint: Checkpoint) -> str:
    parts = [content_pb2.Part(image=content_pb2.Media(data=PICTURE)), content_pb2.Part(text="hi")]
    modalities = (content_pb2.MODALITY_TEXT, content_pb2.MODALITY_IMAGE, content_pb2.MODALITY_AUDIO)
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=parts)
    call: Any = client.stub.Generate(omni_service_pb2.GenerateRequest(messages=[message], modalities=modalities))
    endings, problems = 0, []
    try:
        async for response in call:
            assert not endings
            endings += response.HasField("done")
            if response.HasField("span_closed") and response.span_closed.HasField("problem"):
                problems.append(response.span_closed.problem.reason.lower())
    except grpc.aio.AioRpcError:
        assert not endings
        return str((await error_info(call))[2].reason.lower())
    assert endings == 1
    return as_a_whole(problems)


@pytest.mark.parametrize(("step", "fault", "outcome"), CASES)
async def test_each_request_ends_once_and_says_how(checkpoint: Checkpoint, step: str, fault: str, outcome: str) -> None:
    """Would catch a request without an ending, with two, or with another one than its neighbour on the next door."""
    told = set()
    for door in (plain, streamed, called):
        lever = Lever(step, fault)  # each door meets the fault first, before any breaker has fallen
        pipeline = levered(checkpoint, lever)
        transport = httpx.ASGITransport(create_app(pipeline, Settings()), raise_app_exceptions=False)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http, asyncio.timeout(30):
                if door is called:
                    async with rpc_client(pipeline) as client:
                        ending = await called(client, checkpoint)
                else:
                    ending = await (plain if door is plain else streamed)(http, checkpoint)
        finally:
            lever.release.set()
            await pipeline.close()
        assert lever.met
        told.add(ending)
    # A stream says which span failed where it failed, and ends as any other.
    assert told == ({outcome, "done"} if outcome == "whole" or outcome.startswith("part") else {outcome})
