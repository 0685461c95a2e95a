"""Step 1. A plain wish, such as words to read aloud, becomes an instruction in the wording that the checkpoint knows."""

from __future__ import annotations

import re
from collections.abc import Mapping

from omni_server.dialect import PROMPT_SLOTS
from omni_server.door import Door
from omni_server.errors import ModalityUnavailable, ModelNotFound, RequestError
from omni_server.wording import shown

HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")


def check_model(door: Door, model: str) -> None:
    if model != door.model:
        raise ModelNotFound(f"`model` is {shown(model)}; this server has `{door.model}`", param="model")


def instruction(door: Door, prompt: str, words: str = "", language: str | None = None) -> str:
    """The wording of `prompt` around `words`, in `language` or else in the one that the words are written in."""
    wordings = wordings_of(door, prompt)
    wording = wordings.get(language or language_of(words)) or next(iter(wordings.values()))
    slot = PROMPT_SLOTS[prompt]
    return wording.replace(slot, words) if slot else wording


def wordings_of(door: Door, prompt: str) -> Mapping[str, str]:
    wordings = door.pipeline.checkpoint.prompts.get(prompt)
    if not wordings:
        raise ModalityUnavailable(
            f"`{door.model}` cannot be asked for this here: its checkpoint has no wording for `{prompt}`; "
            f"expected `prompts.{prompt}` in its omni.json. A conversation takes the request in your own words",
            param="model",
        )
    return wordings


def check_language(door: Door, prompt: str, language: str) -> None:
    languages = wordings_of(door, prompt)
    if language not in languages:
        names = ", ".join(f"`{name}`" for name in languages)
        raise RequestError(f"`language` is {shown(language)}; expected one of {names}", param="language")


def language_of(text: str) -> str:
    return "ko" if HANGUL.search(text) else "en"
