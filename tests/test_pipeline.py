"""pipeline.py and reply.py on scripted models: the order of events, faults inside a reply, and leaving it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.config import Settings
from omni_server.errors import DecodeFailed, EngineUnavailable, ModalityUnavailable, OmniError, RequestError
from omni_server.fetch import UrlFetcher
from omni_server.maker import Maker
from omni_server.media import MediaLoader
from omni_server.pipeline import Pipeline
from omni_server.prompt import Prompter
from omni_server.senses import Sense
from omni_server.text import TextCodec
from omni_server.types import (
    REPLIES,
    AudioDelta,
    DecodeOptions,
    Done,
    Event,
    Failed,
    ImagePart,
    ImagePreview,
    ImageProgress,
    ImageReady,
    MediaSource,
    Message,
    Modality,
    Request,
    Sampling,
    Score,
    SpanClosed,
    SpanOpened,
    TextDelta,
    TextPart,
    Thinking,
    TokenChunk,
    TokenScore,
)
from tests.decoders.audio.tiny_vocoder import tiny_decoder as tiny_vocoder
from tests.decoders.image.tiny_decoder import tiny_decoder
from tests.doubles import FaultyDecoder, Forever, ScriptedBackbone, ScriptedDecoder
from tests.facts import write_checkpoint
from tests.media_samples import png_of

END = 257


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = Path(tmp_path_factory.mktemp("mini"))
    write_checkpoint(root)
    return read_checkpoint(root)


class Eye:
    """Encoder and codebook in one: counts how often it looked."""

    size, looks = 10, 0

    def encode(self, media: PIL.Image.Image) -> Any:
        self.looks += 1
        return torch.zeros(2, 8) if self.looks % 2 else [0] * 6


def build(checkpoint: Checkpoint, backbone: ScriptedBackbone, **decoders: Any) -> Pipeline:
    codec = TextCodec(checkpoint.folders["backbone"] / "tokenizer.json")
    settings = Settings()
    eye = Eye()
    return Pipeline(
        checkpoint=checkpoint,
        loader=MediaLoader(settings.media_limits, UrlFetcher(settings.url_policy)),
        senses={Modality.IMAGE: Sense(Modality.IMAGE, eye, eye)},
        prompter=Prompter(checkpoint, codec),
        backbone=backbone,
        codec=codec,
        makers={
            modality: Maker(modality, decoders.get(str(modality)) or FaultyDecoder(modality), 6)
            for modality in (Modality.AUDIO, Modality.IMAGE)
        },
        end_of_turn=[END],
    )


def request(*parts: Any, **changes: Any) -> Request:
    fields = {"modalities": REPLIES} | changes
    return Request("r1", (Message("user", parts or (TextPart("hi"),)),), **fields)


def speech(checkpoint: Checkpoint, *codes: int) -> list[int]:
    band = checkpoint.bands[Modality.AUDIO]
    return [band.open, *(band.first + code for code in codes), band.close]


def picture(checkpoint: Checkpoint) -> list[int]:
    band, grid = checkpoint.bands[Modality.IMAGE], checkpoint.image
    assert grid is not None
    row = [*(band.first + code for code in range(3)), grid.end_of_line]
    return [band.open, grid.ratios["1:1"], *row, *row, grid.end_of_frame, band.close]


async def collect(pipeline: Pipeline, asked: Request) -> list[Event]:
    async with asyncio.timeout(10), pipeline.respond(asked) as events:
        return [event async for event in events]


def endings(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, Done | Failed)]


async def test_words_picture_and_voice(checkpoint: Checkpoint) -> None:
    """Would catch a span without its decoder, usage that forgets a modality, or a second ending."""
    backbone = ScriptedBackbone([104, 105], picture(checkpoint), speech(checkpoint, 1, 2, 3), [END])
    pipeline = build(checkpoint, backbone)
    events = await collect(pipeline, request())
    assert [type(event) for event in endings(events)] == [Done] and endings(events)[0] is events[-1]
    done = events[-1]
    assert isinstance(done, Done)
    assert (done.usage.completion_image_tokens, done.usage.completion_audio_tokens) == (6, 3)
    assert {type(event) for event in events} >= {SpanOpened, TextDelta, ImageReady, AudioDelta, SpanClosed}
    assert [event.error for event in events if isinstance(event, SpanClosed)] == [None, None, None]
    assert {"prompt", "first_token", "first_audio", "first_image", "total"} <= set(done.seconds)


async def test_slow_picture_does_not_hold_back_the_voice_after_it(checkpoint: Checkpoint) -> None:
    """Would catch decoders that wait for each other: the voice stands after the picture, and must be heard before it."""
    gate = threading.Event()
    backbone = ScriptedBackbone(picture(checkpoint), speech(checkpoint, 1, 2), [END])
    drawer = FaultyDecoder(Modality.IMAGE)
    drawer.hold = gate
    pipeline = build(checkpoint, backbone, image=drawer)
    order = []
    async with asyncio.timeout(10), pipeline.respond(request()) as events:
        async for event in events:
            order.append(type(event))
            if isinstance(event, AudioDelta):
                gate.set()
    assert order.index(AudioDelta) < len(order) - 1 - order[::-1].index(ImageReady)
    assert order[-1] is Done


async def test_voice_starts_while_the_backbone_still_speaks(checkpoint: Checkpoint) -> None:
    """Would catch a vocoder that waits for the whole utterance."""
    whole = speech(checkpoint, *range(12))
    backbone = ScriptedBackbone(whole[:4], Forever())
    async with asyncio.timeout(10), build(checkpoint, backbone).respond(request()) as events:
        async for event in events:
            if isinstance(event, AudioDelta):
                break
    assert backbone.spoken == 1


async def test_one_failing_span_harms_no_other(checkpoint: Checkpoint) -> None:
    """Would catch a vocoder's fault that takes the words and the picture with it, or that passes in silence."""
    backbone = ScriptedBackbone(speech(checkpoint, 1), picture(checkpoint), [104, END])
    pipeline = build(checkpoint, backbone, audio=ScriptedDecoder(fault=RuntimeError("boom")))
    events = await collect(pipeline, request())
    errors = {event.index: event.error for event in events if isinstance(event, SpanClosed)}
    assert isinstance(errors.pop(0), DecodeFailed)
    assert set(errors.values()) == {None}
    assert isinstance(events[-1], Done) and any(isinstance(event, ImageReady) for event in events)


class Crowd(ScriptedDecoder):
    """Says how many are inside at once; the first waits inside until `expected` are."""

    spans_at_once = 4

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.meeting = threading.Barrier(expected)

    def finish(self) -> list[object]:
        self.meeting.wait(5)
        return super().finish()


async def test_voices_of_several_requests_are_inside_the_vocoder_together(checkpoint: Checkpoint) -> None:
    """Would catch a lane that lets one voice in at a time: nobody could ever share a call of the network."""
    pipeline = build(checkpoint, ScriptedBackbone(speech(checkpoint, 1), [END]), audio=Crowd(3))
    every = await asyncio.gather(*(collect(pipeline, request()) for _ in range(3)))
    for events in every:
        assert isinstance(events[-1], Done)
        assert not [event for event in events if isinstance(event, SpanClosed) and event.error]


async def test_leaving_while_voices_share_the_vocoder_harms_no_other(checkpoint: Checkpoint) -> None:
    """Would catch a cancelled voice that takes the call it shares, or its place in the lane, with it."""
    decoder = tiny_vocoder()
    pipeline = build(checkpoint, ScriptedBackbone(speech(checkpoint, *range(10)), [END]), audio=decoder)
    spoken = request(decode=DecodeOptions())
    leaving = [asyncio.create_task(collect(pipeline, spoken)) for _ in range(4)]
    staying = [asyncio.create_task(collect(pipeline, spoken)) for _ in range(4)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    for events in await asyncio.gather(*staying):
        sound = [event.samples for event in events if isinstance(event, AudioDelta)]
        assert isinstance(events[-1], Done) and sum(map(len, sound)) == 10 * decoder.network.samples_per_unit


async def test_picture_cut_by_the_token_limit_is_told(checkpoint: Checkpoint) -> None:
    """Would catch half a picture that is drawn, or dropped without a word."""
    events = await collect(build(checkpoint, ScriptedBackbone(picture(checkpoint)[:5])), request())
    (closed,) = [event for event in events if isinstance(event, SpanClosed)]
    assert closed.error is not None and "cut off" in closed.error.message


def three_by_three(checkpoint: Checkpoint) -> tuple[Checkpoint, list[int]]:
    """The miniature with pictures of 3 x 3 codes, as the tiny decoder has them, and the tokens of one."""
    grid, band = checkpoint.image, checkpoint.bands[Modality.IMAGE]
    assert grid is not None
    row = [*(band.first + code for code in (3, 1, 4)), grid.end_of_line]
    tokens = [band.open, grid.ratios["1:1"], *row * 3, grid.end_of_frame, band.close]
    return replace(checkpoint, image=replace(grid, rows=3, columns=3)), tokens


async def test_pictures_of_several_replies_advance_together(checkpoint: Checkpoint) -> None:
    """Would catch a picture that waits for another's end or is changed by it, and progress or previews that are lost."""
    facts, tokens = three_by_three(checkpoint)
    decoder = tiny_decoder()
    pipeline = build(facts, ScriptedBackbone(tokens, [END]), image=decoder)
    order: list[int] = []

    async def draw(seed: int, steps: int) -> list[Event]:
        options = DecodeOptions(seed=seed, steps=steps, previews=1)
        async with asyncio.timeout(60), pipeline.respond(request(decode=options)) as events:
            heard = []
            async for event in events:
                heard.append(event)
                if isinstance(event, ImageProgress):
                    order.append(seed)
        return heard

    wishes = {1: 12, 2: 4, 3: 9}
    replies = await asyncio.gather(*(draw(seed, steps) for seed, steps in wishes.items()))
    for (seed, steps), events in zip(wishes.items(), replies, strict=True):
        assert [event.step for event in events if isinstance(event, ImageProgress)] == list(range(1, steps + 1))
        assert len([event for event in events if isinstance(event, ImagePreview)]) == 1
        (ready,) = [event for event in events if isinstance(event, ImageReady)]
        assert ready.image.tobytes() == drawn_alone(seed, steps)
        done = events[-1]
        assert isinstance(done, Done) and done.seconds["first_preview"] <= done.seconds["first_image"]
    last_of_first = len(order) - 1 - order[::-1].index(1)
    assert order.index(2) < last_of_first and order.index(3) < last_of_first
    assert decoder.batcher.running == 0


async def test_leaving_one_picture_frees_its_slot_and_touches_no_other(checkpoint: Checkpoint) -> None:
    """Would catch a picture that is drawn on for nobody, or one that ends with its neighbour."""
    facts, tokens = three_by_three(checkpoint)
    decoder = tiny_decoder(slots=2)
    pipeline = build(facts, ScriptedBackbone(tokens, [END]), image=decoder)
    staying = asyncio.create_task(collect(pipeline, request(decode=DecodeOptions(seed=1, steps=40))))
    async with asyncio.timeout(60), pipeline.respond(request(decode=DecodeOptions(seed=2, steps=200))) as events:
        async for event in events:
            if isinstance(event, ImageProgress):
                break
    ready = [event for event in await staying if isinstance(event, ImageReady)]
    assert [event.image.tobytes() for event in ready] == [drawn_alone(1, 40)]
    after = await collect(pipeline, request(decode=DecodeOptions(seed=3, steps=2)))
    assert any(isinstance(event, ImageReady) for event in after)
    assert decoder.batcher.running == 0


def drawn_alone(seed: int, steps: int) -> bytes:
    span = tiny_decoder().open(DecodeOptions(seed=seed, steps=steps))
    span.feed([3, 1, 4] * 3)
    [picture] = span.finish()
    return picture.tobytes()


@pytest.mark.parametrize("fault", [EngineUnavailable("gone"), ZeroDivisionError("bug")])
async def test_a_failing_backbone_ends_the_reply_once(checkpoint: Checkpoint, fault: Exception) -> None:
    """Would catch a reply that hangs, ends twice, or shows a bare exception."""
    events = await collect(build(checkpoint, ScriptedBackbone([104], speech(checkpoint, 1)[:2], fault)), request())
    assert [type(event) for event in endings(events)] == [Failed] and endings(events)[0] is events[-1]
    failed = events[-1]
    assert isinstance(failed, Failed) and isinstance(failed.error, OmniError)
    assert "bug" not in failed.error.message


async def test_leaving_stops_everything(checkpoint: Checkpoint) -> None:
    """Would catch a backbone that goes on for a client who has left."""
    backbone = ScriptedBackbone([104], speech(checkpoint, 1)[:2], Forever())
    pipeline = build(checkpoint, backbone)
    before = len(asyncio.all_tasks())
    async with pipeline.respond(request()) as events:
        await anext(events)
        assert backbone.unfinished == 1
    assert backbone.unfinished == 0
    assert len(asyncio.all_tasks()) == before


async def test_cancelled_reader_stops_everything(checkpoint: Checkpoint) -> None:
    """Would catch clean-up that happens only on a polite exit."""
    backbone = ScriptedBackbone([104], Forever())
    task = asyncio.create_task(collect(build(checkpoint, backbone), request()))
    while not backbone.unfinished:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backbone.unfinished == 0


async def test_stop_string_ends_the_reply_and_the_backbone(checkpoint: Checkpoint) -> None:
    """Would catch a stop string that only hides text while the engine works on."""
    codec = TextCodec(checkpoint.folders["backbone"] / "tokenizer.json")
    backbone = ScriptedBackbone(*([token] for token in codec.encode_user("one two three")), Forever())
    asked = request(sampling=Sampling(stop=("two",)), modalities=frozenset({Modality.TEXT}))
    events = await collect(build(checkpoint, backbone), asked)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "one "
    assert isinstance(events[-1], Done) and events[-1].finish_reason == "stop"
    assert backbone.unfinished == 0


async def test_the_same_picture_is_encoded_once(checkpoint: Checkpoint) -> None:
    """Would catch an encoder that runs again for a picture that every turn of a conversation repeats."""
    part = ImagePart(MediaSource("messages[0].content[0].image_url.url", data=png_of(PIL.Image.new("RGB", (8, 8), "red"))))
    backbone = ScriptedBackbone([104, END])
    pipeline = build(checkpoint, backbone)
    for _ in range(3):
        await collect(pipeline, request(part, part, TextPart("and?")))
    assert pipeline._senses[Modality.IMAGE].encoded == 1
    assert len(backbone.prompts[0].placeholders) == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"decode": DecodeOptions(voice="nobody")}, RequestError),
        ({"modalities": frozenset({Modality.TEXT, Modality.IMAGE})}, ModalityUnavailable),
    ],
)
async def test_what_cannot_be_done_is_refused_first(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any], error: type[OmniError]
) -> None:
    """Would catch a request that is accepted and then fails, or one that the backbone sees before it is refused."""
    folders = {name: folder for name, folder in checkpoint.folders.items() if name != "image_decoder"}
    backbone = ScriptedBackbone([104])
    pipeline = build(replace(checkpoint, folders=folders), backbone)
    with pytest.raises(error):
        await collect(pipeline, request(**({"modalities": frozenset({Modality.TEXT})} | changes)))
    assert backbone.prompts == []


async def test_likelihoods_go_with_the_text_of_their_tokens(checkpoint: Checkpoint) -> None:
    """Would catch likelihoods that stand beside another piece of text, that are told for a turn's end, or that get lost where
    a letter is made of two tokens or text is held back for a stop string."""
    codec = TextCodec(checkpoint.folders["backbone"] / "tokenizer.json")
    ids = codec.encode_user("a\N{LATIN SMALL LETTER E WITH ACUTE}x")
    chunks = [TokenChunk((token,), None, 0, (TokenScore(-float(place), ((token, -1.0),)),)) for place, token in enumerate(ids)]
    chunks.append(TokenChunk((END,), "stop", 0, (TokenScore(-9.0),)))
    for stop in ((), ("xyz",)):
        asked = request(sampling=Sampling(logprobs=1, stop=stop), modalities=frozenset({Modality.TEXT}))
        events = await collect(build(checkpoint, ScriptedBackbone(*chunks)), asked)
        deltas = [event for event in events if isinstance(event, TextDelta)]
        scores = [score for delta in deltas for score in delta.scores]
        assert "".join(delta.text for delta in deltas) == "a\N{LATIN SMALL LETTER E WITH ACUTE}x"
        assert [score.logprob for score in scores] == [0.0, -1.0, -2.0, -3.0]
        assert scores[0] == Score("a", 0.0, (("a", -1.0),)) and scores[-1].token == "x"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modalities": frozenset({Modality.TEXT, Modality.IMAGE})}, "`text` alone"),
        ({"thinking": Thinking(wanted=True)}, "`thinking_token_budget`"),
        ({"sampling": Sampling(form={"enum": ["x"] * 2000})}, "`2002` values"),
    ],
)
async def test_a_form_leaves_no_room_for_anything_else(checkpoint: Checkpoint, changes: dict[str, Any], says: str) -> None:
    """Would catch a picture or thoughts that the engine cannot make under a schema, and that end as broken JSON; and a schema
    that keeps the engine busy for minutes."""
    backbone = ScriptedBackbone([104])
    fields = {"modalities": frozenset({Modality.TEXT}), "sampling": Sampling(form={"type": "object"})} | changes
    with pytest.raises(RequestError, match=says) as caught:
        await collect(build(checkpoint, backbone), request(**fields))
    assert caught.value.param == "response_format"
    assert backbone.prompts == []


async def test_words_that_go_on_are_no_answer(checkpoint: Checkpoint) -> None:
    """Would catch a completion of which a part is taken away as thoughts, or a chat template around its prompt."""
    codec = TextCodec(checkpoint.folders["backbone"] / "tokenizer.json")
    thinker = replace(checkpoint, dialect=replace(checkpoint.dialect, tags={"think": "reasoning"}))
    backbone = ScriptedBackbone(codec.encode_user("<think>hm</think>yes"), [END])
    asked = Request("r", (), verbatim="so: ")
    events = await collect(build(thinker, backbone), asked)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "<think>hm</think>yes"
    assert codec.decode(backbone.prompts[0].token_ids) == "so: "
