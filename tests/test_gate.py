"""Admission and deadlines on the real pipeline and on both wires, with scripted models."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from omni.v1 import content_pb2, omni_service_pb2
from omni_server.admission import Admission, Scarce, Wish
from omni_server.call import Call, under
from omni_server.checkpoint import Checkpoint
from omni_server.errors import DeadlineExceeded
from omni_server.gate import Gate, content_of, kind_of
from omni_server.pipeline import Pipeline
from omni_server.types import Done, Failed, Modality, Request, Sampling, TextPart
from tests.doubles import Forever, ScriptedBackbone
from tests.rest.scripts import ask, door
from tests.rpc.doors import error_info, rpc_client
from tests.test_pipeline import END, build, checkpoint, collect, request, speech

__all__ = ["checkpoint"]
WORDS = frozenset({Modality.TEXT})


def narrow(checkpoint: Checkpoint, backbone: ScriptedBackbone, most: int = 2, **capacity: float) -> tuple[Pipeline, Admission]:
    admission = Admission({Scarce(thing): amount for thing, amount in (capacity or {"replies": 1}).items()}, most, patience=60)
    pipeline = build(checkpoint, backbone)
    pipeline._gate = Gate(admission, pipeline.measures)
    return pipeline, admission


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_one_waits_and_starts_when_the_other_is_done(checkpoint: Checkpoint) -> None:
    """Would catch a waiter that is never called in, or whose wait is in no measure."""
    backbone = ScriptedBackbone([104], Forever())
    pipeline, admission = narrow(checkpoint, backbone)
    first = asyncio.create_task(collect(pipeline, request()))
    await until(lambda: backbone.unfinished == 1)
    backbone.chunks = ([104, END],)
    second = asyncio.create_task(collect(pipeline, request()))
    await until(lambda: admission.waiting == 1)
    assert "vllm:num_requests_waiting" in pipeline.measures.exposition().decode()
    first.cancel()
    assert isinstance((await second)[-1], Done)
    assert (admission.running, admission.waiting) == (0, 0)
    assert 'omni_stage_seconds_count{stage="queue"} 1.0' in pipeline.measures.exposition().decode()


async def test_a_waiter_that_leaves_frees_its_place(checkpoint: Checkpoint) -> None:
    """Would catch a queue that fills with clients who have long gone."""
    backbone = ScriptedBackbone([104], Forever())
    pipeline, admission = narrow(checkpoint, backbone, most=10)
    running = asyncio.create_task(collect(pipeline, request()))
    await until(lambda: backbone.unfinished == 1)
    waiters = [asyncio.create_task(collect(pipeline, request())) for _ in range(3)]
    await until(lambda: admission.waiting == 3)
    for task in [*waiters, running]:
        task.cancel()
    await asyncio.gather(*waiters, running, return_exceptions=True)
    assert (admission.running, admission.waiting, admission.held(Scarce.REPLIES)) == (0, 0, 0)


async def test_a_full_server_refuses_on_both_wires(checkpoint: Checkpoint) -> None:
    """Would catch a refusal that a stock client does not repeat, or repeats at another time than the one told."""
    backbone = ScriptedBackbone([104], Forever())
    pipeline, _ = narrow(checkpoint, backbone, most=1)
    running = asyncio.create_task(collect(pipeline, request()))
    await until(lambda: backbone.unfinished == 1)
    async with door(pipeline) as client:  # type: ignore[arg-type]
        refused = await client.post("/v1/chat/completions", json=ask() | {"model": checkpoint.name})
    assert refused.status_code == 503 and refused.headers["x-should-retry"] == "true"
    assert refused.json()["error"]["code"] == "overloaded"
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert 900 < int(refused.headers["retry-after-ms"]) <= 1000 * int(refused.headers["retry-after"])
    async with rpc_client(pipeline) as rpc:
        call = rpc.stub.Generate(generate())
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        code, message, info, retry = await error_info(call)
    assert (code, info.reason, retry) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", True) and "seconds" in message
    running.cancel()
    assert 'omni_rejections_total{reason="overloaded"} 2.0' in pipeline.measures.exposition().decode()


async def test_the_engine_reads_nothing_ahead_while_others_wait(checkpoint: Checkpoint) -> None:
    """Would catch speculative work that takes the place of work somebody waits for."""
    backbone = ScriptedBackbone([104], Forever())
    pipeline, admission = narrow(checkpoint, backbone)
    tasks = [asyncio.create_task(collect(pipeline, request())) for _ in range(2)]
    await until(lambda: admission.waiting == 1)
    prompts = len(backbone.prompts)
    await pipeline.warm(request())
    assert len(backbone.prompts) == prompts
    for task in tasks:
        task.cancel()


async def test_a_deadline_ends_a_reply_and_the_engines_work(checkpoint: Checkpoint) -> None:
    """Would catch an engine that goes on for a client who has stopped waiting, or a reply that ends twice."""
    backbone = ScriptedBackbone([104], speech(checkpoint, 1)[:2], Forever())
    pipeline, admission = narrow(checkpoint, backbone)
    with under(Call("r1", deadline=time.monotonic() + 0.2)):
        events = await collect(pipeline, request())
    ended = [event for event in events if isinstance(event, Done | Failed)]
    assert len(ended) == 1 and isinstance(ended[0], Failed) and isinstance(ended[0].error, DeadlineExceeded)
    await until(lambda: backbone.unfinished == 0)
    assert admission.running == 0


async def test_a_deadline_ends_the_wait_for_room(checkpoint: Checkpoint) -> None:
    """Would catch a client that waits in line after its time is over."""
    backbone = ScriptedBackbone([104], Forever())
    pipeline, admission = narrow(checkpoint, backbone)
    running = asyncio.create_task(collect(pipeline, request()))
    await until(lambda: backbone.unfinished == 1)
    with under(Call("r1", deadline=time.monotonic() + 0.1)), pytest.raises(DeadlineExceeded):
        await collect(pipeline, request())
    assert admission.waiting == 0
    running.cancel()


async def test_deadlines_over_rest(checkpoint: Checkpoint) -> None:
    """Would catch a header that is ignored, or a value that is not understood and taken for none."""
    pipeline, _ = narrow(checkpoint, ScriptedBackbone(Forever()))
    body = ask() | {"model": checkpoint.name}
    async with door(pipeline) as client, asyncio.timeout(10):  # type: ignore[arg-type]
        late = await client.post("/v1/chat/completions", json=body, headers={"x-request-timeout-ms": "100"})
        wrong = [
            await client.post("/v1/chat/completions", json=body, headers={"x-request-timeout-ms": value})
            for value in ("soon", "-1", "0", "1.5", "9" * 40)
        ]
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert late.headers["x-should-retry"] == "false" and late.headers["x-request-id"]
    for response in wrong:
        assert response.status_code == 400 and response.json()["error"]["param"] == "x-request-timeout-ms"
        assert response.headers["x-request-id"]


async def test_deadlines_over_grpc(checkpoint: Checkpoint) -> None:
    """Would catch a call whose client has given up, and whose reply goes on."""
    backbone = ScriptedBackbone(Forever())
    pipeline, admission = narrow(checkpoint, backbone)
    async with rpc_client(pipeline) as rpc:
        call = rpc.stub.Generate(generate(), timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: backbone.unfinished == 0 and admission.running == 0)


async def test_a_deadline_that_cannot_be_met_is_refused_without_work(checkpoint: Checkpoint) -> None:
    """Would catch a request whose deadline is only noticed when it has passed."""
    backbone = ScriptedBackbone([104, END])
    pipeline, admission = narrow(checkpoint, backbone)
    for _ in range(10):
        place = admission.ask(wish_of(request()), now := time.monotonic())
        admission.leave(place, now + 5.0, 10)  # type: ignore[arg-type]
    with under(Call("r1", deadline=time.monotonic() + 1.0)), pytest.raises(DeadlineExceeded, match="more than"):
        await collect(pipeline, request())
    assert not backbone.prompts


def test_the_same_request_is_known_again() -> None:
    """Would catch a client who comes back as told and is taken for somebody else, or two who are taken for one."""
    one = Request("a", (request().messages[0],), sampling=Sampling(seed=1))
    again = Request("b", (request().messages[0],), sampling=Sampling(seed=2))
    other = Request("a", (request(TextPart("ho")).messages[0],))
    assert content_of(one) == content_of(again) != content_of(other)
    assert kind_of(one) == kind_of(again) == kind_of(other)
    assert kind_of(one) != kind_of(request(modalities=WORDS | {Modality.AUDIO}))
    short, long = Request("a", (), verbatim="a fox"), Request("b", (), verbatim="a fox " * 50)
    assert content_of(short) != content_of(long) and kind_of(short) != kind_of(long)


def wish_of(asked: Request) -> Wish:
    return Wish({Scarce.REPLIES: 1}, kind_of(asked), lambda: "x")


def generate() -> omni_service_pb2.GenerateRequest:
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="hi")])
    return omni_service_pb2.GenerateRequest(messages=[message])
