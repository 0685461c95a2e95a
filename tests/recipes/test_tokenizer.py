"""The tokenizer: its ids lie as the checkpoint's bands say, and training writes what the server's template writes."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from recipes.backbone_media import Media  # noqa: E402
from recipes.backbone_samples import IGNORED, Renderer  # noqa: E402
from recipes.tokenizer import AUDIO_CODES, IMAGE_CODES, MARKERS, TEXT_TOKENS, corpus, train_tokenizer, write_folder  # noqa: E402
from recipes.turns import SeenPicture, Turn  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[transformers.PreTrainedTokenizerBase]:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_folder(train_tokenizer(corpus(turns=3000)), folder)
    yield transformers.AutoTokenizer.from_pretrained(folder)


def test_codes_lie_in_unbroken_bands_after_the_text(tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """Catches a token inserted between codes: the router maps ids to codes by subtraction."""
    ids = tokenizer.convert_tokens_to_ids
    assert [ids(marker) for marker in MARKERS] == list(range(TEXT_TOKENS, TEXT_TOKENS + len(MARKERS)))
    first_audio, first_image = ids("<|audio000|>"), ids("<|vision000|>")
    assert first_audio == TEXT_TOKENS + len(MARKERS)
    assert ids(f"<|audio{AUDIO_CODES - 1:03d}|>") == first_audio + AUDIO_CODES - 1
    assert first_image == first_audio + AUDIO_CODES
    assert ids(f"<|vision{IMAGE_CODES - 1:03d}|>") == first_image + IMAGE_CODES - 1 == len(tokenizer) - 1
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize("text", ["draw a fox", "여우 그려줘", "žluťoučký kůň 🦊 日本", "a\n\n b\t c  ", "\u0000\u200d"])
def test_any_text_comes_back(tokenizer: transformers.PreTrainedTokenizerBase, text: str) -> None:
    """Catches a character the vocabulary cannot write."""
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_training_writes_what_the_template_writes(tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """Catches a drift between the dialogues in training and the prompts in the server."""
    codes = np.arange(36)
    media = Media(picture_codes=np.tile(codes, (104, 3, 1)), answers={"a fox": np.array([5, 6, 7])})
    renderer = Renderer(tokenizer, media, random.Random(1), training=False)
    picture = SeenPicture(3, 0)
    turn = Turn("interleaved", "en", (picture, "what is this?"), "a fox", picture, spoken=True)
    written = renderer.request(turn)
    written.append(renderer.answer(turn))

    parts = [{"type": "image"}, {"type": "text", "text": "what is this?"}]
    reply = [{"type": "text", "text": "a fox"}, {"type": "image"}, {"type": "audio"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": reply}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False)
    rows = "".join("".join(f"<|vision{code:03d}|>" for code in row) + "<|vision_eol|>" for row in codes.reshape(6, 6))
    prompt = prompt.replace("<|DISCRETE_IMAGE_PAD|>", f"<|vision_ratio_1:1|>{rows}<|vision_eof|>")
    prompt = prompt.replace("<|DISCRETE_AUDIO_PAD|>", "<|audio005|><|audio006|><|audio007|>")
    prompt = prompt.replace("<|IMAGE_PAD|>", "")  # without features the continuous block stays empty
    assert written.inputs + renderer.encode("\n") == tokenizer(prompt).input_ids


def test_only_answers_are_learned(tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """Catches a loss on what the user said, and an answer whose end is never learned."""
    renderer = Renderer(tokenizer, Media(), random.Random(1), training=False)
    turns = [Turn("translate", "en", ("fox in Korean",), "여우입니다"), Turn("greet", "en", ("hello",), "hello")]
    sample = renderer.conversation(turns)
    learned = [token for token in sample.labels if token != IGNORED]
    assert tokenizer.decode(learned) == "여우입니다<|im_end|>hello<|im_end|>"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "hello"}], "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"),
        (
            [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "x"}]},
            ],
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n<|discrete_audio_start|><|DISCRETE_AUDIO_PAD|>"
            "<|discrete_audio_end|><|audio_start|><|AUDIO_PAD|><|audio_end|>\nx<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_chat_template(
    tokenizer: transformers.PreTrainedTokenizerBase, messages: list[dict[str, object]], expected: str
) -> None:
    """Catches white space that the template language leaves behind."""
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == expected
