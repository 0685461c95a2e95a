"""A converted miniature is served: every modality in and out, over REST, with the real engine."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import PIL.Image
import pytest

from omni_server.config import Settings
from omni_server.conversion.convert import convert
from omni_server.pipeline import Pipeline
from omni_server.types import (
    REPLIES,
    AudioDelta,
    AudioPart,
    DecodeOptions,
    Done,
    Heard,
    ImageReady,
    MediaSource,
    Message,
    Request,
    TextDelta,
    TextPart,
    ToolCalled,
)
from tests.conftest import RealServer, serving
from tests.conversion.miniature import write_published
from tests.conversion.test_convert import OPTIONS, quiet
from tests.doubles import ScriptedBackbone
from tests.media_samples import mp4_of, png_of, wav_of_tone


@pytest.fixture(scope="module")
async def miniature(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealServer]:
    root = tmp_path_factory.mktemp("served")
    convert(write_published(root / "seed"), root / "omni", OPTIONS, quiet)
    async with serving(Settings(port=0, threads=1, checkpoint=root / "omni", max_num_seqs=4)) as server:
        yield server


async def ask(server: RealServer, content: Any, **more: Any) -> dict[str, Any]:
    body = {"model": "omni-miniature", "temperature": 0, "seed": 1, "messages": [{"role": "user", "content": content}]} | more
    async with httpx.AsyncClient() as http:
        reply = await http.post(server.url + "/v1/chat/completions", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


def seconds_of(data: str) -> float:
    with wave.open(io.BytesIO(base64.b64decode(data))) as file:
        return file.getnframes() / file.getframerate()


def link(kind: str, data: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


async def test_text(miniature: RealServer) -> None:
    """Would catch a backbone whose tensors went under the wrong names: its words would be noise."""
    reply = await ask(miniature, "hello")
    assert reply["choices"][0]["message"]["content"] == "ok"
    assert reply["choices"][0]["finish_reason"] == "stop"


async def test_a_picture_of_760_tokens_at_the_first_try(miniature: RealServer) -> None:
    """Would catch a block that is one code short, which no decoder can draw."""
    reply = await ask(miniature, "draw", modalities=["text", "image"])
    (image,) = reply["choices"][0]["message"]["images"]
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].split(",")[1])))
    assert picture.width * picture.height <= 64 * 64
    assert np.asarray(picture).std() > 0
    assert reply["usage"]["completion_tokens_details"]["image_tokens"] == 729
    assert reply["usage"]["completion_tokens"] == 760 + 1  # and the end of the turn


async def test_a_voice(miniature: RealServer) -> None:
    """Would catch a vocoder that lost its voices, and units that are counted from the wrong offset."""
    for voice in ("mhwj", "fkms"):
        reply = await ask(miniature, "speak", modalities=["text", "audio"], audio={"format": "wav", "voice": voice})
        audio = reply["choices"][0]["message"]["audio"]
        assert seconds_of(audio["data"]) == pytest.approx(31 / 25)


async def test_media_in(miniature: RealServer) -> None:
    """Would catch pads that are not expanded, codes under the wrong offset, and a sense that is not connected."""
    picture = png_of(PIL.Image.radial_gradient("L").resize((112, 56)).convert("RGB"))
    reply = await ask(miniature, [{"type": "image_url", "image_url": {"url": link("image/png", picture)}}])
    # 729 codes, 27 row ends, ratio, frame end; and one embedding for each 28 x 28 pixels
    assert reply["usage"]["prompt_tokens_details"]["image_tokens"] == 758 + 4 * 2
    sound = base64.b64encode(wav_of_tone(1.0)).decode()
    reply = await ask(miniature, [{"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}])
    assert reply["usage"]["prompt_tokens_details"]["audio_tokens"] == 25 + 25


async def test_a_video_with_its_sound(miniature: RealServer) -> None:
    """Would catch a video whose frames are not seen, or whose sound is not heard."""
    video = link("video/mp4", mp4_of(seconds=3.0))
    reply = await ask(miniature, [{"type": "video_url", "video_url": {"url": video}}, {"type": "text", "text": "what?"}])
    details = reply["usage"]["prompt_tokens_details"]
    assert details["image_tokens"] > 0 and details["image_tokens"] % 3 == 0  # three pairs of frames
    assert details["audio_tokens"] in (3, 4)  # one a second
    assert reply["choices"][0]["message"]["content"] == "ok"


async def test_thoughts_have_a_budget_and_a_field_of_their_own(miniature: RealServer) -> None:
    """Would catch thoughts that the user reads as the answer, or that never end."""
    reply = await ask(miniature, "hello", thinking_token_budget=1)
    message = reply["choices"][0]["message"]
    assert message["reasoning_content"] == "o" and message["content"] == "ok"
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] >= 1


async def test_what_is_not_there_is_told(miniature: RealServer) -> None:
    """Would catch an unknown voice that becomes a 5xx."""
    body = {
        "model": "omni-miniature",
        "messages": [{"role": "user", "content": "speak"}],
        "modalities": ["text", "audio"],
        "audio": {"format": "wav", "voice": "nobody"},
    }
    async with httpx.AsyncClient() as http:
        reply = await http.post(miniature.url + "/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 400 and "fkms" in reply.json()["error"]["message"]


def scripted(server: RealServer, text: str) -> Pipeline:
    """The served checkpoint with all its parts, but a backbone that says `text`, token by token."""
    real = server.pipeline
    ids = real._codec.encode_template(text)
    return Pipeline(
        real.checkpoint, real._loader, real._senses, real._prompter,
        ScriptedBackbone(*([token] for token in ids)), real._codec, real._makers, real._end_of_turn,
    )  # fmt: skip


async def play(pipeline: Pipeline, *parts: Any, **more: Any) -> list[Any]:
    request = Request("r", (Message("user", (TextPart("x"), *parts)),), modalities=REPLIES, **more)
    async with pipeline.respond(request) as events:
        return [event async for event in events]


UNITS = "".join(f"<|audio{code:04d}|>" for code in range(12))
SPOKEN = (
    "</think>\n\n<user_transcript>안녕</user_transcript>\n<assistant_transcript>hello</assistant_transcript>\n"
    "<audio_decoder_call>\n<speaker_info>%s</speaker_info>\n<discrete_audio><|discrete_audio_start|>"
    f"{UNITS}<|discrete_audio_end|><|im_end|>"
)


def voice_of(events: list[Any]) -> np.ndarray:
    assert isinstance(events[-1], Done)
    return np.concatenate([event.samples for event in events if isinstance(event, AudioDelta)])


async def test_tagged_speech_in_three_voices(miniature: RealServer) -> None:
    """Would catch a voice that the model asks for and the user does not hear, and tags in what the user reads."""
    voices = []
    source = MediaSource("audio", data=wav_of_tone(1.0))
    for said in ("{}", '{"gender": "m", "age": "20-30"}', '{"is_ref_audio": true}'):
        events = await play(scripted(miniature, SPOKEN % said), AudioPart(source))
        assert [event.text for event in events if isinstance(event, Heard)] == ["안녕"]
        assert "".join(event.text for event in events if isinstance(event, TextDelta)).strip() == "hello"
        voices.append(voice_of(events))
    assert {len(voice) for voice in voices} == {12 * 960}
    assert all(np.abs(voices[a] - voices[b]).max() > 1e-4 for a, b in ((0, 1), (0, 2), (1, 2)))
    asked = await play(scripted(miniature, SPOKEN % "{}"), decode=DecodeOptions(voice="mhwj"))
    np.testing.assert_allclose(voice_of(asked), voices[1], atol=1e-5)


async def test_a_voice_made_of_a_recording(miniature: RealServer) -> None:
    """Would catch a voice that is accepted and then not heard, or heard on one wire only."""
    samples = [wav_of_tone(2.0), wav_of_tone(2.0, frequency=110.0)]
    said = {"modalities": ["text", "audio"]}
    async with openai.AsyncOpenAI(base_url=miniature.url + "/v1", api_key="none", max_retries=0) as client:
        consent = await client.audio.voice_consents.create(language="en-US", name="me", recording=("c.wav", samples[0]))
        made = [
            await client.audio.voices.create(audio_sample=("v.wav", sample), consent=consent.id, name="mine")
            for sample in samples
        ]
        voices = ["mhwj", *({"id": each.id} for each in made), {"id": made[0].id}]
        heard = [await ask(miniature, "speak", audio={"format": "wav", "voice": voice}, **said) for voice in voices]
        named, first, second, again = (reply["choices"][0]["message"]["audio"]["data"] for reply in heard)
        assert len({named, first, second}) == 3 and first == again
        assert {seconds_of(data) for data in (named, first, second)} == {seconds_of(named)}
        await client.audio.voice_consents.delete(consent.id)
        with pytest.raises(openai.BadRequestError, match="of a voice that was made of a recording"):
            await client.audio.speech.create(model="omni-miniature", input="hi", voice={"id": made[0].id})


async def test_a_picture_by_tool_call(miniature: RealServer) -> None:
    """Would catch the frame of a picture in the user's text, or a picture that is handed over as a call."""
    grid = "".join("<|vision00003|>" * 27 + "<|vision_eol|>" for _ in range(27))
    block = f"<|discrete_image_start|><|vision_ratio_4:3|>{grid}<|vision_eof|><|discrete_image_end|>"
    call = f"<arg_key>discrete_image_token</arg_key>\n<arg_value>{block}</arg_value>\n"
    events = await play(scripted(miniature, f"Here.\n<tool_call>t2i_model_generation\n{call}</tool_call><|im_end|>"))
    (ready,) = [event for event in events if isinstance(event, ImageReady)]
    assert ready.image.width > ready.image.height
    assert "".join(event.text for event in events if isinstance(event, TextDelta)).strip() == "Here."
    assert not [event for event in events if isinstance(event, ToolCalled)]
    assert isinstance(events[-1], Done) and events[-1].finish_reason == "stop"


def test_inspect_tells_what_it_holds(miniature: RealServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch an inspection that fails on a whole checkpoint or leaves a component out."""
    from omni_server.cli import main

    root: Path = miniature.pipeline.checkpoint.root
    assert main(["inspect", str(root)]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in miniature.pipeline.checkpoint.folders)
    assert "1 x 80 GB" in told and "729" not in told and "27 x 27" in told
