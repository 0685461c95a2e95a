"""Steps 4 and 7. The tokenizer's two directions: trusted template and user text to ids, and ids to text as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextCodec:
    """The backbone's tokenizer. `template` text may hold special tokens; what a user wrote never becomes one."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._template = Tokenizer.from_file(str(tokenizer_file))
        self._user = Tokenizer.from_file(str(tokenizer_file))
        self._user.encode_special_tokens = True

    def encode_template(self, text: str) -> list[int]:
        return list(self._template.encode(text, add_special_tokens=False).ids)

    def encode_user(self, text: str) -> list[int]:
        return list(self._user.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._template.decode(list(ids), skip_special_tokens=False))

    def open(self, stop: Sequence[str] = ()) -> TextDecoder:
        return TextDecoder(self, stop)


class TextDecoder:
    """Incremental: token ids in, text out; holds back half a character, and what may yet become a stop string."""

    def __init__(self, codec: TextCodec, stop: Sequence[str] = ()) -> None:
        self._codec = codec
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._decoded = ""  # text of `_ids` that is already in `_held` or given out
        self._held = ""
        self.stopped = False

    def feed(self, item: Sequence[int]) -> list[str]:
        """New text, if any. After a stop string was met (`stopped`), nothing more."""
        if self.stopped:
            return []
        self._ids.extend(item)
        text = self._codec.decode(self._ids)
        if text.endswith(_UNFINISHED):
            return []
        self._held += text[len(self._decoded) :]
        # A new word starts cleanly, so what was decoded before it can be forgotten.
        self._ids, self._decoded = (self._ids[-8:], self._codec.decode(self._ids[-8:]))
        return self._release(keep=max((len(word) for word in self._stop), default=1) - 1)

    def finish(self) -> list[str]:
        if self.stopped:
            return []
        self._held += self._codec.decode(self._ids)[len(self._decoded) :]
        return self._release(keep=0)

    def _release(self, keep: int) -> list[str]:
        found = [at for at in (self._held.find(word) for word in self._stop) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
        else:
            cut = len(self._held) - keep
            text, self._held = self._held[: max(cut, 0)], self._held[max(cut, 0) :]
        return [text] if text else []
