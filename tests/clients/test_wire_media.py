"""Pictures out of pictures, English out of a recording, and voices out of recordings: the SDK against the REST doors."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from omni_client import BadRequestError, ClonedVoice, Consent, MediaError, NotFoundError, Picture, ResponseFormatError
from omni_server.audio_format import encode
from omni_server.types import ImagePart, TextPart
from tests.clients.both import Both
from tests.clients.test_client import KINDS, Server, both, good
from tests.doubles import ScriptedCheckpoint, ScriptedPipeline
from tests.media_samples import png_of
from tests.rest.scripts import SAMPLE_RATE, done, picture, served, tone, words
from tests.rest.test_voices import cloning
from tests.rest.worded import PROMPTS

BLUE, GREEN = (png_of(PIL.Image.new("RGB", (8, 6), colour)) for colour in ("blue", "green"))
WAV = encode("wav", tone(2.0), SAMPLE_RATE)


def over(kind: str, url: str) -> Both:
    return Both(kind, url)


@KINDS
async def test_pictures_out_of_pictures(kind: str, tmp_path: Path) -> None:
    """Catches a picture that does not arrive, or that arrives in another order, and words that are lost beside it."""
    pipeline = ScriptedPipeline(*picture(0), done())
    pipeline.checkpoint = ScriptedCheckpoint(prompts=PROMPTS)
    (tmp_path / "blue.png").write_bytes(BLUE)
    with served(pipeline) as url:
        client = over(kind, url)
        drawn = await client.call("edit", [tmp_path / "blue.png", GREEN], "draw both", seed=7, size="16x16", format="webp")
        assert (drawn.format, drawn.seed, drawn.image.size) == ("webp", 7, (16, 16))
        varied = await client.call("vary", Picture(BLUE), 2, seed=3)
        assert [one.seed for one in varied] == [3, 4] and all(isinstance(one, Picture) for one in varied)
        with pytest.raises(BadRequestError) as caught:
            await client.call("edit", BLUE, " ")
        assert caught.value.param == "prompt"
    edited, *variations = [request.messages[-1].parts for request in pipeline.requests]
    assert [part.source.data for part in edited if isinstance(part, ImagePart)] == [BLUE, GREEN]
    assert edited[-1] == TextPart("draw both")
    assert len(variations) == 2 and variations[0][0].source.data == BLUE  # type: ignore[union-attr]


@KINDS
async def test_translation(kind: str) -> None:
    """Catches a translation that asks for a transcript."""
    pipeline = ScriptedPipeline(*words(0, "a fox"), done())
    pipeline.checkpoint = ScriptedCheckpoint(prompts=PROMPTS)
    with served(pipeline) as url:
        heard = await over(kind, url).call("translate", WAV, temperature=0.5)
    assert (str(heard), heard.language) == ("a fox", "english")
    assert heard.seconds == pytest.approx(2.0, abs=0.01)
    assert all(request.sampling.temperature == 0.5 for request in pipeline.requests)


@KINDS
async def test_a_voice_from_consent_to_its_end(kind: str) -> None:
    """Catches a voice that cannot be named in a request, one that outlives its consent, and lists that miss either."""
    with served(cloning()) as url:
        client = over(kind, url)
        consent = await client.call("create_consent", "me", WAV, language="en-US")
        assert isinstance(consent, Consent) and (consent.name, consent.language) == ("me", "en-US")
        voice = await client.call("create_voice", "mine", WAV, consent=consent)
        assert isinstance(voice, ClonedVoice) and (voice.name, voice.consent) == ("mine", consent.id)
        assert await client.call("consents") == (consent,) and await client.call("consents", after=consent.id) == ()
        assert await client.call("cloned_voices") == (voice,)  # and not those of the model
        assert (await client.call("speak", "hello", voice=voice.id)).seconds > 0.1
        await client.call("delete_voice", voice)
        with pytest.raises(NotFoundError):
            await client.call("delete_voice", voice.id)
        again = await client.call("create_voice", "mine", WAV, consent=consent.id)
        await client.call("delete_consent", consent)
        assert await client.call("cloned_voices") == () and await client.call("consents") == ()
        with pytest.raises(NotFoundError):
            await client.call("delete_voice", again)


@KINDS
async def test_a_checkpoint_that_takes_no_voices(kind: str) -> None:
    """Catches a refusal that a program cannot tell from another."""
    with served(cloning(clones=False)) as url, pytest.raises(BadRequestError) as caught:
        await over(kind, url).call("create_consent", "me", WAV, language="en")
    assert caught.value.code == "unsupported_modality"


@KINDS
async def test_what_is_no_answer(kind: str) -> None:
    """Catches a KeyError from deep inside, and a medium of the wrong kind that is sent all the same."""
    client = both(kind, Server(good({"data": [{}], "id": 3})))
    for method, given, named in (
        ("edit", (BLUE, "x"), {}),
        ("vary", (BLUE,), {}),
        ("consents", (), {}),
        ("cloned_voices", (), {}),
        ("create_consent", ("me", WAV), {"language": "en"}),
        ("create_voice", ("me", WAV), {"consent": "c"}),
    ):
        with pytest.raises(ResponseFormatError):
            await client.call(method, *given, **named)
    server = Server(good())
    with pytest.raises(MediaError):
        await both(kind, server).call("edit", WAV, "x")
    with pytest.raises(MediaError):
        await both(kind, server).call("create_voice", "me", BLUE, consent="c")
    assert not server.asked


@KINDS
async def test_ids_stay_in_their_place(kind: str) -> None:
    """Catches an id that leads to another path."""
    server = Server(good({"deleted": True}))
    await both(kind, server).call("delete_voice", "../voice_consents/c?x")
    assert server.asked[0].url.raw_path == b"/v1/audio/voices/..%2Fvoice_consents%2Fc%3Fx"
