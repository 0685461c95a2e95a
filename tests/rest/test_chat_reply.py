"""Events to OpenAI's shapes, without a server."""

import base64
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest

from omni_server.audio_format import to_pcm16
from omni_server.errors import DecodeFailed, EngineUnavailable
from omni_server.rest.chat_chunks import ChatChunks, usage_chunk
from omni_server.rest.chat_reply import Base64Slices, ChatChoice, Envelope, usage_body
from omni_server.types import (
    AudioDelta,
    Done,
    Event,
    Failed,
    ImagePreview,
    ImageProgress,
    ImageReady,
    Modality,
    Score,
    SpanClosed,
    SpanOpened,
    TextDelta,
)
from tests.rest.scripts import SAMPLE_RATE, done, picture, tone, voice, words

INTERLEAVED = [
    *words(0, "A ", "fox."),
    *picture(1),
    *voice(2, tone(0.2)),
    *words(3, " Bye."),
    *voice(4, tone(0.1)),
    done(),
]


def envelope(**fields: Any) -> Envelope:
    return Envelope("chatcmpl-1", "omni", 1, lambda audio_id, transcript: 99, **fields)


def chunks_of(events: Sequence[Event], **fields: Any) -> list[dict[str, Any]]:
    shared = envelope(**fields)
    chunks = [*itertools.chain.from_iterable(map(ChatChunks(shared).feed, events))]
    ends = [event for event in events if isinstance(event, Done)]
    return [*chunks, *(usage_chunk(shared, end.usage, end.seconds) for end in ends if shared.include_usage)]


def deltas_of(events: Sequence[Event], **fields: Any) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks_of(events, **fields) if chunk["choices"]]


def body_of(events: Sequence[Event], **fields: Any) -> dict[str, Any]:
    shared = envelope(**fields)
    choice = ChatChoice(shared)
    for event in events:
        choice.feed(event)
    return shared.wrap("chat.completion", choices=[choice.finish()], usage=usage_body(done().usage))


def test_text_alone() -> None:
    """Catches extra keys of other modalities in a plain answer."""
    body = body_of([*words(0, "Hel", "lo"), done("length")])
    message = body["choices"][0]["message"]
    assert message["content"] == "Hello"
    assert not {"audio", "images"} & set(message)
    assert body["choices"][0]["finish_reason"] == "length"
    assert "".join(delta.get("content") or "" for delta in deltas_of([*words(0, "Hel", "lo"), done()])) == "Hello"


def test_a_voice_takes_the_place_of_content() -> None:
    """Catches the second copy of the text beside the transcript, and two choices instead of one."""
    body = body_of(INTERLEAVED, audio_format="pcm16")
    assert len(body["choices"]) == 1
    message = body["choices"][0]["message"]
    assert message["content"] is None
    assert message["audio"] == {
        "id": "audio_1",
        "data": base64.b64encode(to_pcm16(np.concatenate([tone(0.2), tone(0.1)]))).decode(),
        "expires_at": 99,
        "transcript": "A fox. Bye.",
    }
    assert [image["index"] for image in message["images"]] == [0]


def test_the_order_of_spans_is_told() -> None:
    """Catches an interleaved answer whose order nobody can restore."""
    segments = body_of(INTERLEAVED, audio_format="wav")["choices"][0]["message"]["omni"]["segments"]
    assert [(segment["type"], segment["index"]) for segment in segments] == [
        ("text", 0),
        ("image", 1),
        ("audio", 2),
        ("text", 3),
        ("audio", 4),
    ]
    assert (segments[0]["characters"], segments[1]["images"], segments[2]["seconds"]) == (6, 1, 0.2)


def test_progress_and_previews_change_no_answer() -> None:
    """Catches a preview that is taken for the picture, or that ends a stream: chat has no place for either."""
    with_steps: list[Event] = []
    for event in INTERLEAVED:
        if isinstance(event, ImageReady):
            with_steps += [ImageProgress(event.index, 1, 2), ImagePreview(event.index, PIL.Image.new("RGB", (8, 6)))]
        with_steps.append(event)
    assert len(with_steps) == len(INTERLEAVED) + 2
    assert body_of(with_steps, audio_format="wav") == body_of(INTERLEAVED, audio_format="wav")
    assert deltas_of(with_steps) == deltas_of(INTERLEAVED)


def test_streamed_audio_is_the_plain_audio() -> None:
    """Catches lost or doubled samples on the streamed way."""
    audio = [delta["audio"] for delta in deltas_of(INTERLEAVED, audio_format="pcm16") if "audio" in delta]
    joined = "".join(update.get("data", "") for update in audio)
    assert base64.b64decode(joined) == base64.b64decode(
        body_of(INTERLEAVED, audio_format="pcm16")["choices"][0]["message"]["audio"]["data"]
    )
    assert audio[-1] == {"expires_at": 99}
    assert [update["id"] for update in audio if "id" in update] == ["audio_1"]
    assert "".join(update.get("transcript", "") for update in audio) == "A fox. Bye."


def test_a_later_voice_waits_for_the_earlier_one() -> None:
    """Catches two voices mixed into one file where their spans overlap in time."""
    low, high = tone(0.1, 200), tone(0.1, 900)
    overlapping: list[Event] = [
        SpanOpened(0, Modality.AUDIO),
        SpanOpened(1, Modality.AUDIO),
        AudioDelta(1, high, SAMPLE_RATE),
        AudioDelta(0, low, SAMPLE_RATE),
        SpanClosed(1),
        SpanClosed(0),
        done(),
    ]
    data = body_of(overlapping, audio_format="pcm16")["choices"][0]["message"]["audio"]["data"]
    assert base64.b64decode(data) == to_pcm16(np.concatenate([low, high]))


def test_a_failed_span_is_reported_and_the_rest_goes_on() -> None:
    """Catches a lost picture that looks like one nobody wanted, and a healthy chunk with a top-level `error`."""
    events = [*words(0, "Look:"), SpanOpened(1, Modality.IMAGE), SpanClosed(1, DecodeFailed("no picture")), done()]
    error = {"message": "no picture", "type": "server_error", "code": "decode_failed"}
    message = body_of(events)["choices"][0]["message"]
    assert message["content"] == "Look:"
    assert message["omni"]["segments"][1]["error"] == error
    assert "images" not in message
    chunks = chunks_of(events)
    assert not any("error" in chunk for chunk in chunks)
    told = [segment for delta in deltas_of(events) for segment in delta.get("omni", {}).get("segments", ())]
    assert [segment["error"] for segment in told if "error" in segment] == [error]


def test_the_end_of_a_stream() -> None:
    """Catches usage or times in the wrong place: they belong in one last chunk without choices; usage is null before."""
    chunks = chunks_of(INTERLEAVED, audio_format="mp3", include_usage=True)
    assert chunks[-2]["choices"][0]["delta"] == {}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["omni"] == {"seconds": {"total": 0.5}}
    usage = chunks[-1]["usage"]
    assert usage["total_tokens"] == 100
    assert usage["prompt_tokens_details"]["text_tokens"] == 30 - 9 - 5
    assert usage["completion_tokens_details"] == usage["completion_tokens_details"] | {
        "text_tokens": 14,
        "image_tokens": 16,
        "audio_tokens": 40,
    }
    assert not any("usage" in chunk for chunk in chunks_of(INTERLEAVED))


def test_a_failed_reply_raises() -> None:
    """Catches half an answer with status 200."""
    with pytest.raises(EngineUnavailable):
        body_of([*words(0, "Hel"), Failed(EngineUnavailable("gone"))])


def test_a_voice_nobody_asked_for_is_left_out() -> None:
    """Catches audio for a client that never named a format."""
    assert body_of(INTERLEAVED)["choices"][0]["message"]["content"] == "A fox. Bye."
    assert not any("audio" in delta for delta in deltas_of(INTERLEAVED))


@pytest.mark.parametrize("sizes", [[1] * 13, [5, 0, 8], [13]])
def test_base64_pieces_join(sizes: list[int]) -> None:
    """Catches padding in the middle: clients join the strings first and decode once."""
    whole = bytes(range(13))
    starts = np.cumsum([0, *sizes])
    slices = Base64Slices()
    pieces = [slices.feed(whole[start : start + size]) for start, size in zip(starts, sizes, strict=False)]
    assert base64.b64decode("".join([*pieces, slices.finish()]), validate=True) == whole
    assert not any("=" in piece for piece in pieces)


SCORED: list[Event] = [
    SpanOpened(0, Modality.TEXT),
    TextDelta(0, "Hi", (Score("Hi", -0.5, (("Hi", -0.5), ("Ho", float("-inf")))),)),
    TextDelta(0, "!", (Score("\N{REPLACEMENT CHARACTER}", -1.0),)),
    SpanClosed(0),
    done(),
]


def test_likelihoods_stand_beside_their_text() -> None:
    """Catches likelihoods that JSON cannot hold, half a letter shown as bytes, and a stream that tells others."""
    whole = body_of(SCORED, scored=True)["choices"][0]["logprobs"]
    hi = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    assert whole["content"][0] == {**hi, "top_logprobs": [hi, {"token": "Ho", "logprob": -9999.0, "bytes": [72, 111]}]}
    assert whole["content"][1]["bytes"] is None
    chunks = [chunk["choices"][0]["logprobs"] for chunk in chunks_of(SCORED, scored=True)]
    assert [token for told in chunks if told for token in told["content"]] == whole["content"]
    assert body_of(SCORED)["choices"][0]["logprobs"] is None
