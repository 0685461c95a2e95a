"""Step 4. Messages and encodings to a Prompt, through the checkpoint's own chat template. Knows no files and no engine.

Only the template's text is read with special tokens: a user who writes `<|im_end|>` gets those letters, not a turn's end.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox

from omni_server.checkpoint import Checkpoint
from omni_server.errors import CheckpointError, ContextOverflow, RequestError
from omni_server.text import TextCodec
from omni_server.types import AudioPart, Encoding, ImagePart, Message, Modality, Placeholder, Prompt, TextPart


class Prompter:
    """Renders conversations for one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, codec: TextCodec) -> None:
        self._checkpoint = checkpoint
        self._codec = codec
        self._template = _read_template(checkpoint.folders["backbone"])

    def build(self, messages: Sequence[Message], encodings: Sequence[Encoding]) -> Prompt:
        """The prompt for the next assistant turn. `encodings` are those of the media parts, in the order they stand.

        Raises RequestError where the template refuses the conversation, ContextOverflow where no room for a reply is left.
        """
        fence = secrets.token_hex(8)
        texts: list[str] = []
        turns = [{"role": m.role, "content": list(_content(m, fence, texts))} for m in messages]
        try:
            rendered = self._template.render(messages=turns, add_generation_prompt=True)
        except jinja2.TemplateError as error:
            raise RequestError(f"the chat template refuses this conversation: {error}", param="messages") from error
        pieces = rendered.split(fence)
        ids: list[int] = []
        for number, piece in enumerate(pieces):  # template and user text alternate: t u t u t
            ids += self._codec.encode_user(texts[int(piece)]) if number % 2 else self._codec.encode_template(piece)
        prompt = self._expand(ids, list(encodings))
        if len(prompt.token_ids) >= self._checkpoint.context_length:
            raise ContextOverflow(
                f"the conversation takes `{len(prompt.token_ids)}` tokens; "
                f"expected fewer than the context of `{self._checkpoint.context_length}`",
                param="messages",
            )
        return prompt

    def _expand(self, ids: list[int], encodings: list[Encoding]) -> Prompt:
        """Replace each pad by what it stands for: codes as tokens, embeddings as a run of the pad itself."""
        pads = self._checkpoint.pads
        discrete = _present({pads.discrete_image: Modality.IMAGE, pads.discrete_audio: Modality.AUDIO})
        continuous = _present({pads.image: Modality.IMAGE, pads.audio: Modality.AUDIO})
        seen = {Modality.IMAGE: -1, Modality.AUDIO: -1}
        queues = {m: [e for e in encodings if e.modality is m] for m in seen}
        out: list[int] = []
        places: list[Placeholder] = []
        counts = {Modality.IMAGE: 0, Modality.AUDIO: 0}
        for token in ids:
            if token in discrete:
                modality = discrete[token]
                seen[modality] += 1
                expansion = self._code_tokens(queues[modality][seen[modality]])
            elif token in continuous:
                modality = continuous[token]
                if modality not in discrete.values():
                    seen[modality] += 1
                encoding = queues[modality][seen[modality]]
                length = int(encoding.embeddings.shape[0])
                places.append(Placeholder(len(out), length, encoding))
                expansion = [token] * length
            else:
                out.append(token)
                continue
            counts[modality] += len(expansion)
            out += expansion
        return Prompt(tuple(out), tuple(places), counts[Modality.IMAGE], counts[Modality.AUDIO])

    def _code_tokens(self, encoding: Encoding) -> list[int]:
        band = self._checkpoint.bands[encoding.modality]
        tokens = [band.first + code for code in encoding.codes]
        grid = self._checkpoint.image
        if encoding.modality is Modality.AUDIO or grid is None:
            return tokens
        rows = [[*tokens[at : at + grid.columns], grid.end_of_line] for at in range(0, len(tokens), grid.columns)]
        return [_nearest_ratio(grid.ratios, encoding.aspect), *(token for row in rows for token in row), grid.end_of_frame]


def _content(message: Message, fence: str, texts: list[str]) -> Iterator[dict[str, Any]]:
    """Parts for the template. A user's text is fenced by a number that nobody can guess, and put back as plain letters."""
    for part in message.parts:
        match part:
            case TextPart(text):
                texts.append(text)
                yield {"type": "text", "text": f"{fence}{len(texts) - 1}{fence}"}
            case ImagePart():
                yield {"type": "image"}
            case AudioPart():
                yield {"type": "audio"}


def _present(pads: Mapping[int | None, Modality]) -> dict[int, Modality]:
    return {token: modality for token, modality in pads.items() if token is not None}


def _nearest_ratio(ratios: Mapping[str, int], aspect: float) -> int:
    def distance(ratio: str) -> float:
        width, height = (int(side) for side in ratio.split(":"))
        return abs(width / height - aspect)

    return ratios[min(ratios, key=distance)]


def _read_template(folder: Path) -> jinja2.Template:
    path = folder / "chat_template.jinja"
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"`{path}` cannot be read: {error}; expected the backbone's chat template") from None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string(source)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
