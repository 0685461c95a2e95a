"""Training step: the speech projector begins where names already are, in the backbone's own embeddings. Knows no dialogues.

A language model that copies, translates and draws written names hears nothing for a long time: it has to learn at once what
a sound means and what to do with it. Here only the projector learns, in minutes: units of a clip, weighed and summed, shall
lie near the embedding of the name that is said. `python -m recipes.align_speech` writes it into the backbone's training
state, after features exist and before they are trained on.
"""

import argparse
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from omni_server.encoders.audio import Projector
from recipes.backbone_media import Media, load_media
from recipes.backbone_model import load_tokenizer
from recipes.domain import LANGUAGES, cache_folder, load_concepts
from recipes.precision import mixed

EMBEDDINGS = "language_model.model.embed_tokens.weight"
RATE, CLIPS = 2e-3, 192
SHARPNESS = 4.0  # of the choice among names, by distance


def name_embeddings(tokenizer: Any, table: Tensor) -> Tensor:
    """The mean embedding of each name's tokens, [languages * concepts, width], languages in their order."""
    names = [concept.name(language) for language in LANGUAGES for concept in load_concepts()]
    rows = [tokenizer.backend_tokenizer.encode(name, add_special_tokens=False).ids for name in names]
    return torch.stack([table[ids].mean(dim=0) for ids in rows])


def labelled(media: Media) -> list[tuple[Tensor, int]]:
    """Features [units, width] of every clip that names a concept, and the row of that name."""
    concepts = len(load_concepts())
    return [
        (torch.from_numpy(medium.features).float(), LANGUAGES.index(recording.language) * concepts + recording.concept)
        for recording in media.recordings
        if recording.concept is not None
        for medium in media.clips[recording.path]
        if medium.features is not None
    ]


class Alignment(nn.Module):
    """The projector and a throw-away attention that finds the name in a sentence."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.projector = Projector(features, width, width)
        self.attention = nn.Linear(features, 1)
        nn.init.zeros_(self.attention.weight)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features [units, width] of each clip -> [clips, backbone width]."""
        counts = torch.tensor([len(rows) for rows in features])
        padded = nn.utils.rnn.pad_sequence(features, batch_first=True)
        present = torch.arange(padded.shape[1]) < counts[:, None]
        weights = self.attention(padded)[..., 0].masked_fill(~present, float("-inf")).softmax(dim=1)
        with mixed():
            projected = self.projector(padded)
        return (weights[..., None] * projected.float()).sum(dim=1)


def distances(said: Tensor, names: Tensor) -> Tensor:
    """Squared distances over the names' mean square, [clips, names]."""
    return torch.cdist(said, names).square() / names.square().sum(dim=1).mean()


def align(clips: list[tuple[Tensor, int]], names: Tensor, steps: int, seed: int) -> Alignment:
    torch.manual_seed(seed)
    chooser = random.Random(seed)
    model = Alignment(clips[0][0].shape[1], names.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * max(0.02, 1 - step / steps)
        chosen = chooser.sample(clips, CLIPS)
        wanted = torch.tensor([row for _, row in chosen])
        away = distances(model([rows for rows, _ in chosen]), names)
        loss = functional.cross_entropy(-SHARPNESS * away, wanted) + 0.5 * away.gather(1, wanted[:, None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            right = (away.argmin(dim=1) == wanted).float().mean()
            print(f"step {step} loss {loss.item():.3f} named {right.item():.3f}", flush=True)
    return model.eval()


@torch.inference_mode()
def report(model: Alignment, media: Media, names: Tensor) -> None:
    clips = labelled(media)
    right = [
        distances(model([rows for rows, _ in part]), names).argmin(dim=1) == torch.tensor([row for _, row in part])
        for part in (clips[at : at + CLIPS] for at in range(0, len(clips), CLIPS))
    ]
    print(f"speakers and engines never heard: named {torch.cat(right).float().mean():.3f} of {len(clips)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cache = cache_folder()
    path = cache / "backbone" / "training.pt"
    saved = torch.load(path, weights_only=True)
    names = name_embeddings(load_tokenizer(), saved["average"][EMBEDDINGS])
    model = align(labelled(load_media(cache)), names, arguments.steps, arguments.seed)
    report(model, load_media(cache, "eval"), names)
    weights = {f"projectors.audio.{name}": value for name, value in model.projector.state_dict().items()}
    for part in ("model", "average"):
        saved[part] |= {name: value.clone() for name, value in weights.items()}
    saved["moments"] = {name: value for name, value in saved["moments"].items() if name not in weights}
    unfinished = path.with_suffix(".part")
    torch.save(saved, unfinished)
    unfinished.rename(path)


if __name__ == "__main__":
    main()
