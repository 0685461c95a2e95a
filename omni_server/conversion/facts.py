"""Offline. The facts of omni.json, read off the published config and tokenizer; what the folder does not say stands here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from omni_server.conversion.published import Published
from omni_server.errors import CheckpointError

# Structure is written `<|like this|>`; an added token in any other form, such as `<think>`, is part of the text.
_STRUCTURE = re.compile(r"<\|.*\|>")
_RATIO = re.compile(r"<\|vision_ratio_(\d+:\d+)\|>")
MARKERS = {
    "audio": ("<|discrete_audio_start|>", "<|discrete_audio_end|>"),
    "image": ("<|discrete_image_start|>", "<|discrete_image_end|>"),
}
PADS = {
    "image": "<|IMAGE_PAD|>",
    "discrete_image": "<|DISCRETE_IMAGE_PAD|>",
    "audio": "<|AUDIO_PAD|>",
    "discrete_audio": "<|DISCRETE_AUDIO_PAD|>",
    "video": "<|VIDEO_PAD|>",
    "video_audio": "<|VIDEO_AUDIO_PAD|>",
}
OFFSETS = {"audio": "discrete_audio_unit_0_id", "image": "discrete_image_unit_0_id"}
TURN_ENDS = ("<|im_end|>", "<|endofturn|>")
PICTURE_TOOL = "t2i_model_generation"
# How the published template is spoken to, and how the published model answers. The wordings are ours.
DIALECT: dict[str, Any] = {
    "parts": {
        "image": {"type": "image_url", "image_url": {"url": "image.jpg"}},
        "video": {"type": "image_url", "image_url": {"url": "video.mp4"}},
        "audio": {"type": "input_audio", "input_audio": {"data": "audio.wav", "format": "wav"}},
    },
    "durations": {"audio": ["<|audio_meta_duration|>", "{:.2f}s"], "video": ["<|video_meta_duration|>", "{:.0f}s"]},
    "image_input": "rows",
    "thinking": {"on": {"skip_reasoning": False}, "off": {"skip_reasoning": True}, "default": "off"},
    "tags": {
        "think": "reasoning",
        "tool_call": "tool_call",
        "user_transcript": "heard",
        "assistant_transcript": "wrapper",
        "audio_decoder_call": "wrapper",
        "speaker_info": "speaker",
        "discrete_audio": "wrapper",
    },
    "picture": {
        "tool": {
            "type": "function",
            "function": {
                "name": PICTURE_TOOL,
                "description": "Draws a picture, or changes one, from its discrete tokens.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "discrete_image_token": {
                            "type": "string",
                            "description": "The picture as discrete tokens: start, ratio, 27 rows of 27 codes, each row "
                            "closed, the end of the frame, end.",
                        }
                    },
                    "required": ["discrete_image_token"],
                },
            },
        },
        "argument": "discrete_image_token",
        "system": f"When a picture is asked for, answer by calling the tool {PICTURE_TOOL}.",
    },
}
PROMPTS = {
    "speech": {"en": "Read this text aloud, word for word: {input}", "ko": "다음 글을 그대로 소리 내어 읽어 줘: {input}"},
    "picture": {"en": "Draw a picture: {prompt}", "ko": "그림을 그려 줘: {prompt}"},
    "variation": {"en": "Draw this picture again, with small differences.", "ko": "이 그림을 조금 다르게 다시 그려 줘."},
    "translation": {"en": "Translate into English, and answer with the translation alone: {input}"},
    "transcription": {"en": "Write down what is said in this recording.", "ko": "이 녹음에서 말한 것을 그대로 적어 줘."},
}


def omni_facts(
    published: Published, name: str, configs: Mapping[str, Mapping[str, Any]], speakers: Iterable[str]
) -> dict[str, Any]:
    """Raises CheckpointError where tokenizer and config contradict each other."""
    vocabulary = int(configs["backbone"]["vocab_size"])
    codebook = configs["image_codebook"]
    side = codebook["image_size"] // codebook["patch_size"]
    sizes = {"audio": int(configs["audio_codebook"]["n_codebook_size"]), "image": int(codebook["codebook_size"])}
    bands = [_band(published, modality, sizes[modality], vocabulary) for modality in ("audio", "image")]
    ratios = {match[1]: token for token in sorted(published.tokens) if (match := _RATIO.fullmatch(token))}
    if not ratios:
        raise CheckpointError("the tokenizer has no `<|vision_ratio_W:H|>`; expected at least one")
    return {
        "name": name,
        "text_ranges": _text_ranges(published, bands, vocabulary),
        "bands": bands,
        "pads": {key: _known(published, token) for key, token in PADS.items()},
        "image": {
            "rows": side,
            "columns": side,
            "ratios": ratios,
            "end_of_line": _known(published, "<|vision_eol|>"),
            "end_of_frame": _known(published, "<|vision_eof|>"),
        },
        "audio": {"sample_rate": 24000, "units_per_second": 25, "speakers": _speakers(speakers)},
        "dialect": DIALECT,
        "prompts": PROMPTS,
    }


def turn_ends(published: Published, generation: Mapping[str, Any]) -> list[int]:
    """Ids that end the model's turn: what generation_config.json says, or the tokens of that name."""
    said = generation.get("eos_token_id")
    if said is not None:
        return list(said) if isinstance(said, list) else [int(said)]
    return [published.tokens[token] for token in TURN_ENDS if token in published.tokens]


def _known(published: Published, token: str) -> str:
    if token not in published.tokens:
        raise CheckpointError(f"the tokenizer has no `{token}`; expected it as one token")
    return token


def _band(published: Published, modality: str, size: int, vocabulary: int) -> dict[str, Any]:
    stem, digits = ("audio", 4) if modality == "audio" else ("vision", 5)
    names = [f"<|{stem}{code:0{digits}d}|>" for code in (0, size - 1)]
    first, last = (published.tokens[_known(published, token)] for token in names)
    said = published.config.get(OFFSETS[modality])
    if said is not None and said != first:
        raise CheckpointError(f"config.json: `{OFFSETS[modality]}` is `{said}`; the tokenizer has `{names[0]}` at `{first}`")
    if last != first + size - 1 or last >= vocabulary:
        raise CheckpointError(
            f"the tokenizer has `{names[1]}` at `{last}`;"
            f" expected `{first + size - 1}`, inside the vocabulary of `{vocabulary}`"
        )
    opens, closes = (_known(published, marker) for marker in MARKERS[modality])
    return {"modality": modality, "first": first, "size": size, "open": opens, "close": closes}


def _text_ranges(published: Published, bands: list[dict[str, Any]], vocabulary: int) -> list[list[int]]:
    """Runs of ids that are words: neither structure nor codes."""
    taken = {id for band in bands for id in range(band["first"], band["first"] + band["size"])}
    ids = sorted(
        id
        for token, id in published.tokens.items()
        if id < vocabulary and id not in taken and not (token in published.added and _STRUCTURE.fullmatch(token))
    )
    ranges: list[list[int]] = []
    for id in ids:
        if ranges and id == ranges[-1][0] + ranges[-1][1]:
            ranges[-1][1] += 1
        else:
            ranges.append([id, 1])
    return ranges


def _speakers(names: Iterable[str]) -> list[dict[str, str]]:
    """Which voice answers to a gender: published names begin with it. Ages are in no published file."""
    return [{"voice": name, "gender": name[0]} for name in names if name[:1] in ("f", "m")]
