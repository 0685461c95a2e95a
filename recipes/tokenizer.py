"""Training step: the tokenizer, a byte-level BPE of the checkpoint's own dialogues and the codes after it.

`python -m recipes.tokenizer FOLDER` writes a plain Hugging Face tokenizer folder. Knows nothing about networks.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from recipes.dialogues import WEIGHTS, Dialogues
from recipes.domain import LANGUAGES, load_concepts
from recipes.phrasings import answer_text

TEXT_TOKENS = 1400
AUDIO_CODES, IMAGE_CODES = 729, 512
CORPUS_TURNS = 30_000
MARKERS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|IMAGE_PAD|>",
    "<|discrete_image_start|>",
    "<|discrete_image_end|>",
    "<|DISCRETE_IMAGE_PAD|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|AUDIO_PAD|>",
    "<|discrete_audio_start|>",
    "<|discrete_audio_end|>",
    "<|DISCRETE_AUDIO_PAD|>",
    "<|vision_ratio_1:1|>",
    "<|vision_eol|>",
    "<|vision_eof|>",
)
CHAT_TEMPLATE = """\
{%- set discrete_image = '<|discrete_image_start|><|DISCRETE_IMAGE_PAD|><|discrete_image_end|>' -%}
{%- set discrete_audio = '<|discrete_audio_start|><|DISCRETE_AUDIO_PAD|><|discrete_audio_end|>' -%}
{%- set image = discrete_image ~ '<|image_start|><|IMAGE_PAD|><|image_end|>' -%}
{%- set audio = discrete_audio ~ '<|audio_start|><|AUDIO_PAD|><|audio_end|>' -%}
{%- for message in messages -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- elif message.content -%}
        {%- set own = message.role == 'assistant' -%}
        {%- for part in message.content -%}
            {{- '\\n' if not own and not loop.first -}}
            {%- if part.type == 'text' -%}{{- part.text -}}
            {%- elif part.type == 'image' -%}{{- discrete_image if own else image -}}
            {%- elif part.type == 'audio' -%}{{- discrete_audio if own else audio -}}
            {%- else -%}{{- raise_exception('unknown content part `' ~ part.type ~ '`') -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def special_tokens() -> list[str]:
    """All tokens after the text, in the order of their ids."""
    audio = [f"<|audio{code:03d}|>" for code in range(AUDIO_CODES)]
    image = [f"<|vision{code:03d}|>" for code in range(IMAGE_CODES)]
    return [*MARKERS, *audio, *image]


def corpus(seed: int = 1, turns: int = CORPUS_TURNS) -> Iterator[str]:
    """The written side of many dialogues; names and answers often enough to become whole tokens."""
    for concept in load_concepts():
        for language in LANGUAGES:
            name = concept.name(language)
            yield from [name, f"a {name}", f" {name}", f"'{name}'", answer_text(concept, language)] * 100
    dialogues = Dialogues([], random.Random(seed), WEIGHTS | {"refuse": 1.0})
    for _ in range(turns):
        turn = dialogues.turn()
        yield from (part for part in turn.user if isinstance(part, str))
        yield turn.text
    yield from ["system\n", "user\n", "assistant\n"] * turns


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """Byte-level, so that any UTF-8 can be written."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != TEXT_TOKENS:
        raise ValueError(f"expected `{TEXT_TOKENS}` text tokens, the corpus gave `{tokenizer.get_vocab_size()}`")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special_tokens()])
    return tokenizer


def write_folder(tokenizer: Tokenizer, folder: Path) -> None:
    """What `AutoTokenizer.from_pretrained` reads, offline."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    tokenizer = train_tokenizer(corpus())
    write_folder(tokenizer, folder)
    for language in LANGUAGES:
        lengths = [len(tokenizer.encode(concept.name(language)).ids) for concept in load_concepts()]
        print(f"{language}: {sum(lengths) / len(lengths):.2f} tokens per name")


if __name__ == "__main__":
    main()
