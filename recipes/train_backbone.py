"""Training step: the backbone and its two projectors, on the media there are so far. Knows not how those were made.

The published order comes by itself from what is in the cache: texts and discrete codes first, then the frozen
continuous encoders' features through the projectors, all in dialogues. Resumable; `--export` writes what there is.

Begin with terse phrasings of the cheap text tasks until names are copied and translated (text loss under 0.5), or the
mixture stays for thousands of steps where every answer is any name:

    python -m recipes.train_backbone --minutes 15 --terse 0.75 --weigh translate=2 translate_back=2 text_to_picture=.5 \
        picture_to_name=.3 picture_to_picture=.2 picture_and_speech=0 speech_to_text=0 speech_to_speech=0 speech_to_picture=0
    python -m recipes.train_backbone --minutes 15 --terse 0.3 --weigh picture_to_name=2 text_to_speech=.4 translate=.4
    python -m recipes.train_backbone --minutes 30 --terse 0.3 --decay-minutes 9

`torchrun --nproc-per-node 2 -m recipes.train_backbone ...` gives each of two cores lessons of its own and steps on their mean.
"""

import argparse
import random
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from omni_server.encoders.audio import Projector
from recipes.backbone_media import Media, load_media
from recipes.backbone_model import EMBEDDED, export_backbone, load_tokenizer, new_model
from recipes.backbone_samples import IGNORED, TEXT_WEIGHT, Batch, Renderer, batches
from recipes.dialogues import WEIGHTS, Dialogues
from recipes.domain import cache_folder
from recipes.measure_backbone import measure
from recipes.precision import mixed
from recipes.processes import agreed, join, rank, share_gradients

PEAK_RATE, WEIGHT_DECAY, AVERAGING = 1e-3, 0.05, 0.995
WARM_STEPS = 60
COUNT_STEP = 64  # few different sizes: the library compiles its kernels anew for each
EMBEDDING_FACTOR = 3.0  # a name is seen rarely
BATCHES = 3  # of different lengths, and so of different tasks, to each step
SAVE_SECONDS, MEASURE_SECONDS = 240, 3000
WITHOUT_FEATURES = 0.25
NEEDS = {
    "picture_to_name": ("picture",),
    "picture_to_picture": ("picture",),
    "picture_and_speech": ("picture", "speech"),
    "speech_to_text": ("speech",),
    "speech_to_speech": ("speech",),
    "speech_to_picture": ("speech",),
}


class Omni(nn.Module):
    """The language model with the two projectors in front of it, made when the width of their features is known."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.language_model = new_model(tokenizer)
        self.width = self.language_model.config.hidden_size
        self.projectors = nn.ModuleDict()
        self.text_tokens = tokenizer.convert_tokens_to_ids("<|endoftext|>")

    def add_projectors(self, media: Media) -> bool:
        """Whether a projector is new."""
        new = False
        if media.seen_features is not None and "image" not in self.projectors:
            self.projectors["image"] = nn.Linear(media.seen_features.shape[-1], self.width)
            new = True
        features = next((clip[0].features for clip in media.clips.values() if clip[0].features is not None), None)
        if features is not None and "audio" not in self.projectors:
            self.projectors["audio"] = Projector(features.shape[-1], self.width, self.width)
            new = True
        return new

    def add_projectors_like(self, state: dict[str, Tensor]) -> None:
        """Those that a stored state holds weights of."""
        if "projectors.image.weight" in state:
            self.projectors["image"] = nn.Linear(state["projectors.image.weight"].shape[1], self.width)
        if "projectors.audio.fc1.weight" in state:
            self.projectors["audio"] = Projector(state["projectors.audio.fc1.weight"].shape[1], self.width, self.width)

    def embed(self, batch: Batch) -> Tensor:
        """[batch, length, width], features put in their places."""
        embedded: Tensor = self.language_model.model.embed_tokens(batch.inputs)
        flat = embedded.flatten(0, 1)
        for kind, places, features in (
            ("image", batch.image_places, batch.image_features),
            ("audio", batch.audio_places, batch.audio_features),
        ):
            if len(places):
                flat = flat.index_copy(0, places, self.projectors[kind](features).to(flat))
        return flat.view_as(embedded)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted loss, and the mean losses of text and of codes for the log."""
        following = functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORED).flatten()
        places = (following != IGNORED).nonzero().flatten()
        places = functional.pad(places, (0, -len(places) % COUNT_STEP), value=len(following) - 1)  # where nothing is wanted
        labels = following[places]
        with mixed():
            hidden = self.language_model.model(inputs_embeds=self.embed(batch), use_cache=False).last_hidden_state
            logits = self.language_model.lm_head(hidden.flatten(0, 1)[places]).float()
        losses = functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
        is_text = (labels >= 0) & (labels < self.text_tokens + 3)  # the end of a turn included
        weights = torch.where(is_text, TEXT_WEIGHT, 1.0) * (labels >= 0)
        nothing = torch.zeros(())
        text = losses[is_text].mean() if is_text.any() else nothing
        is_code = labels >= self.text_tokens + 3
        codes = losses[is_code].mean() if is_code.any() else nothing
        return (losses * weights).sum() / weights.sum(), text.detach(), codes.detach()


class Training:
    """Everything that goes on from a checkpoint: model, running average, optimiser, step."""

    def __init__(self, seed: int, turns: int = 1, terse: float = 0.0, factors: dict[str, float] | None = None) -> None:
        torch.manual_seed(seed)
        self.turns, self.terse, self.factors = turns, terse, factors or {}
        self.cache = cache_folder()
        self.path = self.cache / "backbone" / "training.pt"
        self.tokenizer = load_tokenizer()
        self.model = Omni(self.tokenizer)
        self.step = 0
        self.media = load_media(self.cache)
        saved = torch.load(self.path, weights_only=True) if self.path.exists() else None
        if saved:
            self.step = saved["step"]
            self.model.add_projectors_like(saved["model"])
            self.model.load_state_dict(saved["model"])
        self.model.add_projectors(self.media)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        if saved:
            self.average |= saved["average"]
        self.rank = rank()
        self.random = random.Random(f"{seed}|{self.step}" + (f"|{self.rank}" if self.rank else ""))
        self._make_optimizer(saved)

    def _make_optimizer(self, saved: dict[str, Any] | None = None) -> None:
        """Moments are kept by parameter name, so that new projectors may join."""
        embeddings = self.model.language_model.model.embed_tokens.weight
        decayed = [value for value in self.model.parameters() if value.dim() > 1 and value is not embeddings]
        others = [value for value in self.model.parameters() if value.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        groups.append({"params": [embeddings], "weight_decay": 0.0, "factor": EMBEDDING_FACTOR})
        moments = saved["moments"] if saved else self._moments() if hasattr(self, "optimizer") else {}
        self.optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.99), fused=True)
        for name, value in self.model.named_parameters():
            if name in moments:
                self.optimizer.state[value] = moments[name]

    def _moments(self) -> dict[str, Any]:
        return {
            name: self.optimizer.state[value] for name, value in self.model.named_parameters() if value in self.optimizer.state
        }

    def save(self) -> None:
        if self.rank:
            return
        unfinished = self.path.with_suffix(".part")
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "moments": self._moments(),
        }
        torch.save(state, unfinished)
        unfinished.rename(self.path)

    def refresh_media(self) -> None:
        """Takes in what others have finished since."""
        self.media = load_media(self.cache)
        if self.model.add_projectors(self.media):
            self.average |= {name: value.clone() for name, value in self.model.state_dict().items() if name not in self.average}
            self._make_optimizer()

    def stream(self, tokens: int) -> Any:
        have = {"picture": self.media.picture_codes is not None, "speech": bool(self.media.clips)}
        weights = {task: weight for task, weight in WEIGHTS.items() if all(have[need] for need in NEEDS.get(task, ()))}
        if self.media.seen_features is None:  # codes alone say little of a disturbed picture
            weights |= {task: weight * WITHOUT_FEATURES for task, weight in weights.items() if task.startswith("picture")}
        weights |= {task: weight * self.factors.get(task, 1.0) for task, weight in weights.items()}
        dialogues = Dialogues(self.media.recordings, self.random, weights, self.terse)
        print(
            f"pictures {have['picture']}, recordings {len(self.media.recordings)}, answers {len(self.media.answers)}, "
            f"projectors {list(self.model.projectors)}",
            flush=True,
        )
        renderer = Renderer(self.tokenizer, self.media, self.random)
        return batches(dialogues, renderer, tokens, self.tokenizer.pad_token_id, self.turns)

    def train(self, until: datetime, decay_minutes: float, tokens: int) -> None:
        """Constant rate after a short warm-up, falling to nothing over the last minutes before `until`."""
        stream = self.stream(tokens)
        saved = measured = logged = time.monotonic()
        seen, worked, text, codes = 0, time.process_time(), 0.0, 0.0
        while (left := agreed((until - datetime.now()).total_seconds())) > 0:
            rate = PEAK_RATE * min(1.0, (self.step + 1) / WARM_STEPS, max(0.02, left / 60 / decay_minutes))
            chosen = [next(stream) for _ in range(BATCHES)]
            text_loss, code_loss = self.update(chosen, rate)
            seen += sum(batch.inputs.numel() for batch in chosen)
            text, codes = text + (text_loss - text) * 0.05, codes + (code_loss - codes) * 0.05
            now = time.monotonic()
            if self.step % 50 == 0 and not self.rank:
                rates = f"{seen / (now - logged):.0f} tokens/s, {seen / (time.process_time() - worked):.0f} per CPU second"
                print(f"{datetime.now():%H:%M:%S} step {self.step} text {text:.3f} codes {codes:.3f} {rates}", flush=True)
                seen, logged, worked = 0, now, time.process_time()
            if now - saved > SAVE_SECONDS:
                self.save()
                self.refresh_media()
                stream = self.stream(tokens)
                saved = time.monotonic()
            if now - measured > MEASURE_SECONDS and not self.rank:
                self.report()
                measured = logged = time.monotonic()
        self.save()

    def update(self, chosen: list[Batch], rate: float) -> tuple[float, float]:
        """One step on the sum of the batches' gradients; returns the mean losses of text and codes."""
        self.optimizer.zero_grad(set_to_none=True)
        texts, codes = [], []
        for batch in chosen:
            loss, text, code = self.model(batch)
            (loss / len(chosen)).backward()
            texts += [float(text)] if text > 0 else []
            codes += [float(code)] if code > 0 else []
        share_gradients(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(AVERAGING, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        return sum(texts) / max(1, len(texts)), sum(codes) / max(1, len(codes))

    def averaged(self) -> Omni:
        model = Omni(self.tokenizer)
        model.projectors = type(self.model.projectors)({name: _like(module) for name, module in self.model.projectors.items()})
        model.load_state_dict(self.average)
        return model.eval()

    def report(self, cases: int = 24) -> None:
        for line in measure(self.averaged(), self.tokenizer, load_media(self.cache, "eval"), cases):
            print(line, flush=True)

    def export(self, folder: Path) -> None:
        """The averaged backbone, and the encoders that it was trained with, its projectors in them."""
        model = self.averaged()
        export_backbone(model.language_model, model.language_model.state_dict(), folder / "backbone")
        for kind, prefix in (("image", "mm_projector."), ("audio", "audio_projector.")):
            own = self.cache / f"{kind}_encoder"
            if kind in model.projectors and own.exists():
                weights = model.projectors[kind].state_dict()
                tensors = load_file(own / "model.safetensors")
                save_file(tensors | {prefix + name: value.half() for name, value in weights.items()}, own / "model.safetensors")
                for name in ("config.json", "model.safetensors"):
                    shutil.copy(own / name, folder / f"{kind}_encoder" / name)
        print(f"exported step {self.step}")


def _like(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Linear):
        return nn.Linear(module.in_features, module.out_features)
    assert isinstance(module, Projector)
    return Projector(module.fc1.in_features, module.fc1.out_features, module.fc2.out_features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--decay-minutes", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--turns", type=int, default=1, help="most turns of a conversation; begin with 1")
    parser.add_argument("--weigh", nargs="*", default=[], metavar="TASK=FACTOR", help="begin with more of the plain texts")
    parser.add_argument("--terse", type=float, default=0.0, help="share of the tersest phrasings; begin with 0.6")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--measure", type=int, default=0, metavar="CASES")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    join()
    factors = {task: float(factor) for task, factor in (each.split("=") for each in arguments.weigh)}
    training = Training(arguments.seed, arguments.turns, arguments.terse, factors)
    if arguments.measure:
        training.report(arguments.measure)
    elif arguments.export:
        training.export(EMBEDDED)
    else:
        until = datetime.fromtimestamp(time.time() + arguments.minutes * 60)
        training.train(until, arguments.decay_minutes, arguments.tokens)


if __name__ == "__main__":
    main()
