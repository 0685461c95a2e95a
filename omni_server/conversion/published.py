"""Offline. The published folder as it lies on disk: its commented config, its tensors by name, its tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_server.conversion.tensors import Stored, read_folder
from omni_server.errors import CheckpointError

# A string is matched first, so that `#` and `//` inside of one are no comment.
_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|#[^\n]*|//[^\n]*')


@dataclass(frozen=True, slots=True)
class Published:
    """One published checkpoint, read and not yet judged."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Stored]
    tokens: Mapping[str, int]
    added: frozenset[str]  # tokens that were added beside the text vocabulary

    def section(self, name: str) -> Mapping[str, Any]:
        value = self.config.get(name)
        if not isinstance(value, Mapping):
            raise CheckpointError(f"config.json: `{name}` is `{value!r}`; expected an object")
        return value

    def document(self, name: str) -> dict[str, Any]:
        """A JSON file beside the config, or nothing where it is absent."""
        path = self.folder / name
        return read_commented(path) if path.is_file() else {}


def read_published(folder: Path) -> Published:
    """Raises CheckpointError: no folder, no config, missing or truncated shards, no tokenizer."""
    if not folder.is_dir():
        raise CheckpointError(f"`{folder}` is no folder; expected a published checkpoint")
    config = read_commented(folder / "config.json")
    tensors = read_folder(folder, "model")
    document = read_commented(folder / "tokenizer.json")
    tokens = dict(document.get("model", {}).get("vocab", {}))
    added = {entry["content"]: entry["id"] for entry in document.get("added_tokens", [])}
    return Published(folder, config, tensors, tokens | added, frozenset(added))


def read_commented(path: Path) -> dict[str, Any]:
    """A JSON object that may hold `#` and `//` comments."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise CheckpointError(f"`{path}` is missing; expected it in a published checkpoint") from None
    try:
        document = json.loads(_STRING_OR_COMMENT.sub(lambda match: match[1] or "", text))
    except ValueError as problem:
        raise CheckpointError(f"`{path}` cannot be read as JSON with comments: {problem}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"`{path}` holds a JSON {type(document).__name__}; expected an object")
    return document
