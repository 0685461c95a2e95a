"""The draft learns what its backbone would say, is the network that the engine runs, and is exported as the server reads it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from omni_server.draft import draft_tokens
from recipes.backbone_samples import IGNORED, Batch
from recipes.draft_model import Draft, export_draft, load_draft
from recipes.train_draft import Lesson, loss_of

STEPS = 3
CONFIG = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=128,
    initializer_range=0.3,  # so that it has opinions
)


class Spoken(torch.nn.Module):
    """A backbone without media."""

    def __init__(self) -> None:
        super().__init__()
        self.language_model = LlamaForCausalLM(CONFIG).eval().requires_grad_(False)

    def embed(self, batch: Batch) -> torch.Tensor:
        return self.language_model.model.embed_tokens(batch.inputs)


@pytest.fixture
def omni() -> Iterator[Spoken]:
    torch.manual_seed(3)
    yield Spoken()


def batch_of(inputs: torch.Tensor, asked: int) -> Batch:
    labels = inputs.clone()
    labels[:, :asked] = IGNORED
    nothing = torch.zeros(0)
    return Batch(inputs, labels, nothing.long(), nothing, nothing.long(), nothing)


def test_places_are_those_that_the_engine_drafts_from(omni: Spoken) -> None:
    """Would catch a loss over what the user says, or over a token that comes of reading the prompt."""
    lesson = Lesson(omni, batch_of(torch.arange(1, 9)[None], asked=4))  # the reply is at 4 to 7
    assert lesson.places(1).tolist() == [[0, 3], [0, 4], [0, 5]]
    assert lesson.places(2).tolist() == [[0, 3], [0, 4]]
    assert lesson.places(4).tolist() == []


def test_training_makes_the_loss_fall(omni: Spoken) -> None:
    """Would catch a gradient that does not reach the draft, or labels of another place than the one drafted."""
    draft = Draft(CONFIG)
    draft.begin_as(omni.language_model)
    optimizer = torch.optim.AdamW(draft.parameters(), lr=3e-3)
    lesson = Lesson(omni, batch_of(torch.randint(64, (4, 16)), asked=4))
    losses, right = [], [0.0]
    for _ in range(60):
        optimizer.zero_grad()
        loss, right = loss_of(draft, omni.language_model.lm_head, lesson, STEPS)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] * 0.7
    assert right[0] > 0.5
    assert all(parameter.grad is None for parameter in omni.parameters())


@torch.inference_mode()
def test_steps_are_those_of_the_engine(omni: Spoken) -> None:
    """Would catch a later step that hears what is not in the engine's cache: there, a step of one token goes on from the steps
    before it at that place, and from the first step of all the places before."""
    draft = Draft(CONFIG).eval()
    draft.begin_as(omni.language_model)
    hidden, embedded = torch.randn(1, 10, 32), torch.randn(1, 10, 32)
    states = draft.ahead(hidden, embedded, STEPS)
    place = 5
    alone = draft.ahead(hidden[:, : place + 1], embedded[:, : place + 1], 1)[0][:, -1]
    assert torch.allclose(states[0][:, place], alone, atol=1e-5)
    changed = hidden.clone()
    changed[:, place + 1 :] += 1.0  # what the backbone says later
    later = draft.ahead(changed, embedded, STEPS)
    assert all(torch.allclose(a[:, place], b[:, place], atol=1e-5) for a, b in zip(states, later, strict=True))
    assert not torch.allclose(states[2][:, place + 1], later[2][:, place + 1], atol=1e-3)


@torch.inference_mode()
def test_exported_as_the_server_reads_it(tmp_path: Path) -> None:
    """Would catch names, shapes or a config that the server refuses, and weights that are not those that were trained."""
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    (backbone / "config.json").write_text(json.dumps(CONFIG.to_dict()), encoding="utf-8")
    (backbone / "model.safetensors").write_bytes(b"weights")
    draft, again = Draft(CONFIG), Draft(CONFIG)
    export_draft(draft, backbone, tmp_path / "draft", 2)
    assert draft_tokens(tmp_path / "draft", CONFIG.to_dict()) == 2
    load_draft(again, tmp_path / "draft")
    for name, value in draft.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float())
