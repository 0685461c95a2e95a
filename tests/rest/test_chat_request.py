"""What a chat body means for the pipeline."""

import time

import pytest

from omni_server.config import Settings
from omni_server.door import Door, Transcripts
from omni_server.errors import ModelNotFound, RequestError
from omni_server.rest.chat_request import chat_request
from omni_server.rest.chat_wire import ChatRequest
from omni_server.types import AudioPart, ImagePart, MediaSource, Message, Modality, Request, TextPart
from tests.doubles import ScriptedPipeline
from tests.rest.scripts import ask


def meant(door: Door | None = None, **fields: object) -> Request:
    chat = ChatRequest.model_validate(ask() | fields)
    return chat_request(chat, "chatcmpl-1", door or Door(ScriptedPipeline(), Settings()))


def test_parts_keep_their_order_and_their_address() -> None:
    """Catches media errors that cannot say which part of which message was bad."""
    content = [
        {"type": "text", "text": "what"},
        {"type": "image_url", "image_url": {"url": "data:,a"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
    ]
    request = meant(messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": content}])
    assert request.messages == (
        Message("system", (TextPart("be brief"),)),
        Message(
            "user",
            (
                TextPart("what"),
                ImagePart(MediaSource("messages[1].content[1].image_url.url", url="data:,a")),
                AudioPart(MediaSource("messages[1].content[2].input_audio.data", url="UklG")),
            ),
        ),
    )


def test_sampling_reaches_the_backbone() -> None:
    """Catches a field that is accepted and then lost."""
    request = meant(temperature=0.5, top_p=0.9, seed=7, stop="END", max_completion_tokens=5, max_tokens=9)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.stop) == (0.5, 0.9, 7, ("END",))
    assert sampling.max_tokens == 5
    assert request.decode.seed == 7
    assert meant(max_tokens=-1).sampling.max_tokens is None


def test_constraints_reach_the_backbone() -> None:
    """Catches a schema, a bias or likelihoods that are accepted and then lost."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    sampling = meant(response_format=named, logit_bias={"7": -100, "9": 1.5}, logprobs=True, top_logprobs=3).sampling
    assert sampling.form == schema
    assert sampling.logit_bias == ((7, -100.0), (9, 1.5))
    assert sampling.logprobs == 3
    assert meant(response_format={"type": "json_object"}).sampling.form == {"type": "object"}
    assert meant(logprobs=True).sampling.logprobs == 0
    assert (meant().sampling.form, meant().sampling.logprobs) == (None, None)
    with pytest.raises(RequestError, match="`logprobs` true"):
        meant(top_logprobs=3)


def test_modalities_always_hold_text() -> None:
    """Catches a voice without its transcript where a client asks for `["audio"]` alone."""
    request = meant(modalities=["audio"], audio={"format": "wav", "voice": {"id": "sage"}})
    assert request.modalities == {Modality.TEXT, Modality.AUDIO}
    assert request.decode.voice == "sage"
    assert meant().modalities == {Modality.TEXT}


def test_audio_needs_its_format() -> None:
    """Catches a format that is guessed where OpenAI wants it said."""
    with pytest.raises(RequestError, match="`audio` is missing") as caught:
        meant(modalities=["text", "audio"])
    assert caught.value.param == "audio"


def test_unknown_model() -> None:
    """Catches a server that answers in the name of a model that it does not have."""
    with pytest.raises(ModelNotFound, match="`gpt-9`; this server has `omni-scripted`"):
        meant(model="gpt-9")


def test_an_answer_comes_back_as_history() -> None:
    """Catches a follow-up turn that forgets what the model said or drew."""
    door = Door(ScriptedPipeline(), Settings())
    door.transcripts.keep("audio_1", "I said this")
    image = {"type": "image_url", "image_url": {"url": "data:,a"}, "index": 0}
    spoken = {"role": "assistant", "content": None, "refusal": None, "audio": {"id": "audio_1", "data": "x"}}
    drawn = {"role": "assistant", "content": "Here.", "images": [image], "omni": {"segments": []}}
    last = {"role": "user", "content": "again"}
    messages = meant(door, messages=[spoken, drawn, last]).messages
    assert messages[0].parts == (TextPart("I said this"),)
    assert messages[1].parts == (
        TextPart("Here."),
        ImagePart(MediaSource("messages[1].images[0].image_url.url", url="data:,a")),
    )


def test_forgotten_audio_is_refused() -> None:
    """Catches a history with a hole in it, transcripts that are kept for ever, and a clock of the machine that is set: what was
    said a minute ago would be forgotten, or never."""
    now = 1000.0
    transcripts = Transcripts(lambda: now, limit=2, lifetime=60)
    door = Door(ScriptedPipeline(), Settings(), transcripts)
    assert transcripts.keep("audio_1", "one") == pytest.approx(time.time() + 60, abs=5)
    transcripts.keep("audio_2", "two")
    transcripts.keep("audio_3", "three")
    assert transcripts.find("audio_1") is None
    assert transcripts.find("audio_3") == "three"
    now = 1061.0
    with pytest.raises(RequestError, match="`audio_3`") as caught:
        meant(door, messages=[{"role": "assistant", "audio": {"id": "audio_3"}}])
    assert caught.value.param == "messages[0].audio.id"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": None},
        {"role": "user", "content": []},
        {"role": "assistant"},
        {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:,a"}}]},
    ],
)
def test_messages_without_meaning(message: dict[str, object]) -> None:
    """Catches empty turns that reach the chat template."""
    with pytest.raises(RequestError, match=r"messages\[0\]\.content"):
        meant(messages=[message])
