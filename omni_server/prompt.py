"""Step 4. Messages and encodings to a Prompt, through the checkpoint's own chat template. Knows no files and no engine.

Only the template's text is read with special tokens: a user who writes `<|im_end|>` gets those letters, not a turn's end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omni_server.chat_template import ChatTemplate
from omni_server.checkpoint import Checkpoint
from omni_server.errors import ContextOverflow, RequestError
from omni_server.text import TextCodec
from omni_server.types import Encoding, Message, Modality, Placeholder, Prompt, TextPart, Thinking

NO_WISH = Thinking()
MEDIA = (Modality.IMAGE, Modality.AUDIO, Modality.VIDEO)


class Prompter:
    """Renders conversations for one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, codec: TextCodec) -> None:
        self._checkpoint = checkpoint
        self._codec = codec
        band, pad = checkpoint.bands.get(Modality.IMAGE), checkpoint.pads.discrete_image
        picture = codec.decode([band.open, pad, band.close]) if band is not None and pad is not None else None
        self._template = ChatTemplate(checkpoint.folders["backbone"], checkpoint.dialect, picture)
        self.call_form = self._template.call_form()

    def build(
        self,
        messages: Sequence[Message],
        encodings: Sequence[Encoding],
        tools: Sequence[Mapping[str, Any]] = (),
        thinking: Thinking = NO_WISH,
        *,
        draws: bool = False,
    ) -> Prompt:
        """The prompt for the next assistant turn. `encodings` are those of the media parts, in the order they stand; with
        `draws` a model that draws by calling a tool is given that tool.

        Raises RequestError where the template refuses the conversation, ContextOverflow where no room for a reply is left.
        """
        picture = self._checkpoint.dialect.picture
        if draws and picture is not None:
            messages, tools = _ordered_to_draw(messages, picture.system), (*tools, picture.tool)
        pieces = self._template.render(messages, tools, self._thinks(thinking))
        pieces = self._with_durations(pieces, encodings)
        ids: list[int] = []
        for number, piece in enumerate(pieces):  # template and user text alternate: t u t u t
            ids += self._codec.encode_user(piece) if number % 2 else self._codec.encode_template(piece)
        return self._fitting(self._expand(ids, list(encodings), thinking=self._ends_in_thought(pieces[-1])), "messages")

    def verbatim(self, words: str | Sequence[int]) -> Prompt:
        """A prompt of these words, or token ids, alone. Raises RequestError for ids that are no text, ContextOverflow."""
        ids = self._codec.encode_user(words) if isinstance(words, str) else list(words)
        ranges = self._checkpoint.text_ranges or ((0, self._checkpoint.vocabulary),)
        wrong = [token for token in ids if not any(first <= token < first + size for first, size in ranges)]
        if wrong:
            raise RequestError(f"`prompt` holds the token id `{wrong[0]}`; expected ids of text", param="prompt")
        if not ids:
            raise RequestError("`prompt` is empty; expected words to go on from", param="prompt")
        return self._fitting(Prompt(tuple(ids)), "prompt")

    def _fitting(self, prompt: Prompt, param: str) -> Prompt:
        if len(prompt.token_ids) >= self._checkpoint.context_length:
            raise ContextOverflow(
                f"`{param}` takes `{len(prompt.token_ids)}` tokens; "
                f"expected fewer than the context of `{self._checkpoint.context_length}`",
                param=param,
            )
        return prompt

    def _thinks(self, thinking: Thinking) -> bool:
        if thinking.wanted is None:
            return self._checkpoint.dialect.thinks or bool(thinking.budget)
        return thinking.wanted

    def _ends_in_thought(self, ending: str) -> bool:
        tag = self._checkpoint.dialect.tag_of("reasoning")
        return tag is not None and ending.rfind(f"<{tag}>") > ending.rfind(f"</{tag}>")

    def _with_durations(self, pieces: list[str], encodings: Sequence[Encoding]) -> list[str]:
        """The template leaves a word where a length belongs; each is filled in turn, in the template's own text only."""
        for medium, (word, form) in self._checkpoint.dialect.durations.items():
            lengths = [form.format(round(e.seconds, 2)) for e in encodings if e.modality == medium]
            for place in range(0, len(pieces), 2):
                while lengths and word in pieces[place]:
                    pieces[place] = pieces[place].replace(word, lengths.pop(0), 1)
        return pieces

    def _expand(self, ids: list[int], encodings: list[Encoding], *, thinking: bool) -> Prompt:
        """Replace each pad by what it stands for: codes as tokens, embeddings as a run of the pad itself."""
        pads = self._checkpoint.pads
        discrete = _present({pads.discrete_image: Modality.IMAGE, pads.discrete_audio: Modality.AUDIO})
        continuous = _present({pads.image: Modality.IMAGE, pads.audio: Modality.AUDIO, pads.video: Modality.VIDEO})
        queues = {m: [e for e in encodings if e.modality is m] for m in MEDIA}
        seen = dict.fromkeys(MEDIA, -1)
        counts = dict.fromkeys(MEDIA, 0)
        out: list[int] = []
        places: list[Placeholder] = []
        for place, token in enumerate(ids):
            if token in discrete:
                modality = discrete[token]
                seen[modality] += 1
                codes = self._code_tokens(queues[modality][seen[modality]])
                counts[modality] += len(codes)
                out += codes
            elif token in continuous:
                modality = continuous[token]
                if modality not in discrete.values():
                    seen[modality] += 1
                encoding = queues[modality][seen[modality]]
                counts[modality] += _place(encoding, token, out, places)
                sounds = encoding.sound is not None and pads.video_audio is not None
                # The sound of a video follows its frames, also where the template has no place of its own for it.
                if sounds and pads.video_audio not in ids[place : place + 2]:
                    counts[Modality.AUDIO] += _place(encoding.sound, pads.video_audio, out, places)
            elif token == pads.video_audio:
                sound = queues[Modality.VIDEO][seen[Modality.VIDEO]].sound
                counts[Modality.AUDIO] += _place(sound, token, out, places)
            else:
                out.append(token)
        images = counts[Modality.IMAGE] + counts[Modality.VIDEO]
        return Prompt(tuple(out), tuple(places), images, counts[Modality.AUDIO], thinking)

    def _code_tokens(self, encoding: Encoding) -> list[int]:
        band = self._checkpoint.bands[encoding.modality]
        tokens = [band.first + code for code in encoding.codes]
        grid = self._checkpoint.image
        if encoding.modality is Modality.AUDIO or grid is None:
            return tokens
        ratio = _nearest_ratio(grid.ratios, encoding.aspect)
        if self._checkpoint.dialect.image_input == "plain":
            return [ratio, *tokens]
        rows = [[*tokens[at : at + grid.columns], grid.end_of_line] for at in range(0, len(tokens), grid.columns)]
        return [ratio, *(token for row in rows for token in row), grid.end_of_frame]


def _place(encoding: Encoding | None, pad: int | None, out: list[int], places: list[Placeholder]) -> int:
    """Puts a run of `pad` as long as the embeddings at the end of `out`; returns its length, 0 where there is nothing."""
    if encoding is None or pad is None:
        return 0
    length = int(encoding.embeddings.shape[0])
    places.append(Placeholder(len(out), length, encoding))
    out += [pad] * length
    return length


def _ordered_to_draw(messages: Sequence[Message], order: str) -> list[Message]:
    """The order to draw stands in the system turn, after the user's own words there."""
    first, rest = (messages[0], list(messages[1:])) if messages[0].role == "system" else (Message("system", ()), list(messages))
    order = f"\n{order}" if first.parts else order
    return [Message("system", (*first.parts, TextPart(order))), *rest]


def _present(pads: Mapping[int | None, Modality]) -> dict[int, Modality]:
    return {token: modality for token, modality in pads.items() if token is not None}


def _nearest_ratio(ratios: Mapping[str, int], aspect: float) -> int:
    def distance(ratio: str) -> float:
        width, height = (int(side) for side in ratio.split(":"))
        return abs(width / height - aspect)

    return ratios[min(ratios, key=distance)]
