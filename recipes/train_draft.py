"""Training step: the draft of the tokens to come, beside the frozen backbone that ships. Knows nothing of the engine.

The draft learns what the backbone itself would say (its probabilities at the temperature it is served at), over the same
conversations and media that the backbone learned from. It belongs to one backbone: train it again when that has changed, it
goes on from the draft that ships. Resumable; says at its end how many tokens a step brings on held-out phrasings.

    python -m recipes.train_draft --minutes 12 --export
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from omni_server.checkpoint import sha256_of
from recipes.assemble import assemble
from recipes.backbone_media import Media, load_media
from recipes.backbone_model import EMBEDDED, GENERATION, load_tokenizer
from recipes.backbone_samples import IGNORED, Batch, Renderer, batches, collate
from recipes.dialogues import WEIGHTS, Dialogues
from recipes.domain import LANGUAGES, cache_folder
from recipes.draft_model import Draft, export_draft, load_draft
from recipes.measure_backbone import TASKS, generate, held_out_turn
from recipes.precision import mixed
from recipes.restore import backbone_state
from recipes.train_backbone import NEEDS, Omni
from recipes.training_run import TrainingRun, set_rate

PEAK_RATE, WEIGHT_DECAY = 1e-3, 0.05
LATER_WEIGHT = 0.7  # of each further step's loss: a later token counts only where those before it were right
TOKENS, TURNS, TERSE = 512, 2, 0.2
DRAFTED = 3  # tokens that the server drafts unless it is told otherwise; bench.draft shows which number pays most
SPANS = ("text", "speech", "image")


class Lesson:
    """What the frozen backbone says to a batch: hidden states, and what it would say next at each place of a reply."""

    @torch.no_grad()
    def __init__(self, omni: Omni, batch: Batch) -> None:
        language_model = omni.language_model
        with mixed():
            embedded = omni.embed(batch)
            self.hidden = language_model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state.float()
        # The engine drafts over media by their pads, so no features here.
        self.following = language_model.model.embed_tokens(batch.inputs.roll(-1, 1)).detach()
        self.inputs = batch.inputs
        self.said = batch.labels != IGNORED
        self.batch = batch

    def places(self, step: int) -> Tensor:
        """[n, 2] rows and places t at which the draft's `step` is asked for token t + 1 + step, all of one reply."""
        inside = self.said.clone()
        for shift in range(1, step + 1):
            inside &= self.said.roll(-shift, 1)
        inside[:, self.said.shape[1] - step :] = False
        found = inside.nonzero()
        found[:, 1] -= 1
        return found[found[:, 1] >= 0]


def loss_of(draft: Draft, head: nn.Linear, lesson: Lesson, steps: int) -> tuple[Tensor, list[float]]:
    """The weighted cross entropy with the backbone's own probabilities, and each step's share of equal first choices."""
    total, right = torch.zeros(()), []
    with mixed():
        states = draft.ahead(lesson.hidden, lesson.following, steps)
        for step, state in enumerate(states, 1):
            rows, places = lesson.places(step).unbind(1)
            if not len(rows):  # replies of a word or two end before
                break
            with torch.no_grad():
                wanted = head(lesson.hidden[rows, places + step]).float()
            drafted = head(state[rows, places]).float()
            chances = torch.softmax(wanted / GENERATION["temperature"], dim=-1)
            loss = nn.functional.cross_entropy(drafted, chances)
            total = total + loss * LATER_WEIGHT ** (step - 1)
            right.append(float((drafted.argmax(-1) == wanted.argmax(-1)).float().mean()))
    return total, right


class Trainer:
    """Frozen backbone, draft and the run; everything is built from the folder that ships and the cache."""

    def __init__(self, seconds: float, steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.steps, self.seed = steps, seed
        self.tokenizer: Any = load_tokenizer()
        self.cache = cache_folder()
        self.omni = frozen_backbone(self.tokenizer)
        self.draft = Draft(self.omni.language_model.config)
        self.draft.begin_as(self.omni.language_model)
        if (EMBEDDED / "backbone_draft").is_dir():
            load_draft(self.draft, EMBEDDED / "backbone_draft")
        decayed = [value for value in self.draft.parameters() if value.dim() > 1]
        others = [value for value in self.draft.parameters() if value.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.99), fused=True)
        # Named after its backbone, so that a run never goes on beside another one.
        backbone = sha256_of(EMBEDDED / "backbone" / "model.safetensors")[:12]
        path = self.cache / "backbone_draft" / f"{backbone}.pt"
        self.run = TrainingRun(path, seconds, {"draft": self.draft, "optimizer": self.optimizer})

    def train(self) -> None:
        chooser = random.Random(f"{self.seed}|{self.run.step}")
        stream = lessons(self.tokenizer, load_media(self.cache), chooser)
        shares, logged = [0.0] * self.steps, time.monotonic()
        while self.run.advance():
            set_rate(self.optimizer, self.run.rate(PEAK_RATE))
            right = self.update(Lesson(self.omni, next(stream)))
            shares[: len(right)] = [share + (new - share) * 0.02 for share, new in zip(shares, right, strict=False)]
            if self.run.step % 100 == 0:
                told = ", ".join(f"{share:.3f}" for share in shares)
                seconds, logged = time.monotonic() - logged, time.monotonic()
                print(f"step {self.run.step} right {told}; {100 / seconds:.1f} steps/s, {self.run.share:.0%}", flush=True)

    def update(self, lesson: Lesson) -> list[float]:
        self.optimizer.zero_grad(set_to_none=True)
        loss, right = loss_of(self.draft, self.omni.language_model.lm_head, lesson, self.steps)
        loss.backward()
        nn.utils.clip_grad_norm_(self.draft.parameters(), 1.0)
        self.optimizer.step()
        return right

    def report(self, cases: int) -> None:
        """On replies of the backbone's own, greedy, to held-out phrasings."""
        media = load_media(self.cache, "eval")
        for span, (drafted, runs) in accepted(self.omni, self.draft, self.tokenizer, media, self.steps, cases).items():
            shares = [runs[step] / max(1, drafted) for step in range(1, self.steps + 1)]
            told = ", ".join(f"{share:.2f}" for share in shares)
            print(f"  {span}: {1 + sum(shares):.2f} tokens a step; taken ahead {told} ({drafted} places)", flush=True)


def frozen_backbone(tokenizer: Any) -> Omni:
    """The backbone that ships, with its projectors."""
    omni = Omni(tokenizer)
    state = backbone_state(EMBEDDED, forget_speech=False)["model"]
    omni.add_projectors_like(state)
    omni.load_state_dict(state)
    return omni.eval().requires_grad_(False)


def lessons(tokenizer: Any, media: Media, chooser: random.Random) -> Iterator[Batch]:
    """Conversations as the server would hand them over, nothing left out of them; of the tasks that there are media for."""
    have = {"picture": media.picture_codes is not None, "speech": bool(media.clips)}
    weights = {task: weight for task, weight in WEIGHTS.items() if all(have[need] for need in NEEDS.get(task, ()))}
    dialogues = Dialogues(media.recordings, chooser, weights, TERSE)
    renderer = Renderer(tokenizer, media, chooser, training=False)
    return batches(dialogues, renderer, TOKENS, tokenizer.pad_token_id, TURNS)


@torch.inference_mode()
def accepted(
    omni: Omni, draft: Draft, tokenizer: Any, media: Media, steps: int, cases: int
) -> dict[str, tuple[int, Counter[int]]]:
    """By the kind of the first drafted token: places drafted from, and at how many of them 1, 2, ... tokens were right."""
    chooser = random.Random(7)
    dialogues = Dialogues(media.recordings, chooser)
    renderer = Renderer(tokenizer, media, chooser, training=False)
    found: dict[str, tuple[int, Counter[int]]] = {span: (0, Counter()) for span in SPANS}
    needed = {"picture": media.picture_codes is not None, "speech": bool(media.clips)}
    for task in TASKS:
        if not all(needed[need] for need in NEEDS.get(task, ())):
            continue
        made = [held_out_turn(task, LANGUAGES[case % 2], dialogues, chooser) for case in range(cases)]
        turns = [turn for turn in made if turn is not None]
        if not turns:
            continue
        for turn, reply in zip(turns, generate(omni, renderer, turns, 0.0), strict=True):
            sample = renderer.request(turn)
            sample.extend(reply, reply)
            lesson = Lesson(omni, collate([sample], renderer.end))
            states = draft.ahead(lesson.hidden, lesson.following, steps)
            choices = [omni.language_model.lm_head(state)[0].argmax(-1) for state in states]
            for _, place in lesson.places(1).tolist():
                span = _span(renderer, int(lesson.inputs[0, place + 2]))
                run = 0
                while run < steps and place + 2 + run < len(sample.inputs):
                    if int(choices[run][place]) != int(lesson.inputs[0, place + 2 + run]):
                        break
                    run += 1
                    found[span][1][run] += 1
                found[span] = (found[span][0] + 1, found[span][1])
    return found


def _span(renderer: Renderer, token: int) -> str:
    if token < renderer.tokenizer.convert_tokens_to_ids("<|endoftext|>") or token == renderer.end:
        return "text"
    speech = (*renderer.blocks["discrete_audio"], *range(renderer.audio_first, renderer.image_first))
    return "speech" if token in speech else "image"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--steps", type=int, default=3, help="tokens ahead that are learned")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=6, help="of each task in the report")
    parser.add_argument("--export", action="store_true", help="into the checkpoint that ships, with its hash")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trainer = Trainer(arguments.minutes * 60, arguments.steps, arguments.seed)
    trainer.train()
    if arguments.export:
        export_draft(trainer.draft, EMBEDDED / "backbone", EMBEDDED / "backbone_draft", DRAFTED)
        assemble(EMBEDDED)
    trainer.report(arguments.cases)


if __name__ == "__main__":
    main()
