"""grammar.py, through the compiler that the engine uses: what may follow what."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import xgrammar

from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.grammar import span_grammar
from omni_server.router import Router
from omni_server.types import Closed, Codes, Modality, Opened
from tests.facts import write_checkpoint

END = 257  # <|im_end|>


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = Path(tmp_path_factory.mktemp("mini"))
    write_checkpoint(root)
    return read_checkpoint(root)


def compile_for(checkpoint: Checkpoint, *modalities: Modality) -> xgrammar.CompiledGrammar:
    words = [f"token{number}" for number in range(checkpoint.vocabulary)]
    info = xgrammar.TokenizerInfo(words, vocab_size=len(words), stop_token_ids=[END])
    return xgrammar.GrammarCompiler(info).compile_lark(span_grammar(checkpoint, frozenset({Modality.TEXT, *modalities})))


def allowed(matcher: xgrammar.GrammarMatcher, vocabulary: int) -> list[int]:
    mask = xgrammar.allocate_token_bitmask(1, vocabulary)
    matcher.fill_next_token_bitmask(mask)
    words = mask[0].to(torch.int64)
    return [token for token in range(vocabulary) if (int(words[token // 32]) >> (token % 32)) & 1]


@pytest.mark.parametrize(
    "modalities",
    [(), (Modality.IMAGE,), (Modality.AUDIO,), (Modality.IMAGE, Modality.AUDIO)],
    ids=lambda modalities: "+".join(("text", *modalities)),
)
def test_random_walks_are_well_formed(checkpoint: Checkpoint, modalities: tuple[Modality, ...]) -> None:
    """Would catch a short picture, a code in text, a modality that was not asked for, or speech that never comes."""
    compiled = compile_for(checkpoint, *modalities)
    chooser = random.Random(7)
    for _ in range(100):
        matcher, ids = xgrammar.GrammarMatcher(compiled), []
        while not ids or ids[-1] != END:
            choices = allowed(matcher, checkpoint.vocabulary)
            # Markers and the end are a handful among hundreds, so weigh them up or walks would be all text.
            rare = [token for token in choices if token >= 256 and token < 256 + 18]
            ids.append(chooser.choice(rare if rare and chooser.random() < 0.4 else choices))
            assert matcher.accept_token(ids[-1])
        router = Router(checkpoint.bands, checkpoint.image, [END])
        check(checkpoint, [*router.feed(ids), *router.finish()], set(modalities))


def check(checkpoint: Checkpoint, events: list[Opened | Codes | Closed], modalities: set[Modality]) -> None:
    kinds = {event.index: event.modality for event in events if isinstance(event, Opened)}
    assert set(kinds.values()) <= {Modality.TEXT, *modalities}
    assert all(event.complete for event in events if isinstance(event, Closed))
    if Modality.AUDIO in modalities:
        assert Modality.AUDIO in kinds.values()
    for index, modality in kinds.items():
        size = sum(len(event.codes) for event in events if isinstance(event, Codes) and event.index == index)
        assert size == (checkpoint.image.codes if modality is Modality.IMAGE and checkpoint.image else size) > 0
