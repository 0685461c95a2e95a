"""Training step: turns -> token ids, labels and the places of continuous features; batches of like lengths.

The ids are those the server builds: its chat template with every placeholder expanded. Knows nothing about networks.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recipes.backbone_media import Media, Medium
from recipes.dialogues import Dialogues
from recipes.turns import HeardClip, SeenPicture, Turn

IGNORED = -100
GRID = 6
LONGEST = 400
LENGTH_STEP = 16
DRAWN_DROPOUT = ((0.0, 0.15, 0.5, 1.0), (1, 2, 3, 3))  # input codes of a picture being drawn: rates, weights
SPOKEN_DROPOUT = ((0.0, 0.15, 0.5), (4, 2, 1))
MEDIUM_DROPOUT = ((0.0, 0.2, 1.0), (4, 2, 4))  # input codes of the user's media
NO_FEATURES = 0.15
NO_SPEECH_CODES = 0.5  # share of heard clips with features whose codes are left out: half as long, twice as many lessons
TEMPO, NOISE, LONGEST_GAP = 0.2, 0.3, 4  # of features: stretch, noise over their own spread, units without sound
FORGET_MEDIA = 0.25  # share of conversations whose history keeps only the texts of earlier answers
TEXT_WEIGHT = 5.0
HEARD_TAG = "heard"  # around what was heard, before the answer; omni.json names it


@dataclass(slots=True)
class Sample:
    """One conversation. `inputs` differ from what is to be predicted where codes are dropped."""

    inputs: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    image_places: list[int] = field(default_factory=list)
    image_features: list[np.ndarray] = field(default_factory=list)
    audio_places: list[int] = field(default_factory=list)
    audio_features: list[np.ndarray] = field(default_factory=list)

    def extend(self, ids: list[int], labels: list[int] | None = None) -> None:
        self.inputs += ids
        self.labels += labels if labels is not None else [IGNORED] * len(ids)

    def append(self, other: "Sample") -> None:
        self.image_places += [place + len(self.inputs) for place in other.image_places]
        self.audio_places += [place + len(self.inputs) for place in other.audio_places]
        self.image_features += other.image_features
        self.audio_features += other.audio_features
        self.extend(other.inputs, other.labels)


@dataclass(slots=True)
class Batch:
    inputs: Tensor  # [batch, length]
    labels: Tensor  # [batch, length]; what the position before must predict
    image_places: Tensor  # [m], into the flattened inputs
    image_features: Tensor  # [m, width]
    audio_places: Tensor
    audio_features: Tensor


class Renderer:
    """Writes turns as token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, media: Media, chooser: random.Random, training: bool = True) -> None:
        self.tokenizer, self.media, self.random, self.training = tokenizer, media, chooser, training
        ids = tokenizer.convert_tokens_to_ids
        self.image_first, self.audio_first = ids("<|vision000|>"), ids("<|audio000|>")
        self.image_pad, self.audio_pad = ids("<|IMAGE_PAD|>"), ids("<|AUDIO_PAD|>")
        self.image_mask, self.audio_mask = ids("<|DISCRETE_IMAGE_PAD|>"), ids("<|DISCRETE_AUDIO_PAD|>")
        self.ratio, self.row_end, self.image_end = (
            ids("<|vision_ratio_1:1|>"),
            ids("<|vision_eol|>"),
            ids("<|vision_eof|>"),
        )
        self.end = ids("<|im_end|>")
        self.blocks = {
            name: (ids(f"<|{name}_start|>"), ids(f"<|{name}_end|>"))
            for name in ("image", "discrete_image", "audio", "discrete_audio")
        }

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def conversation(self, turns: list[Turn]) -> Sample:
        """As many turns as fit, each with its loss; the last one always whole."""
        forget = self.random.random() < FORGET_MEDIA
        sample = Sample()
        for position, turn in enumerate(turns):
            last = position == len(turns) - 1
            rendered = self.request(turn)
            rendered.append(self.answer(turn, last=last, forgotten=forget and not last))
            if sample.inputs and len(sample.inputs) + len(rendered.inputs) > LONGEST:
                break
            sample.append(rendered)
            sample.extend(self.encode("\n"))
        return sample

    def request(self, turn: Turn) -> Sample:
        """The user's turn and the head of the answer."""
        sample = Sample()
        text = "<|im_start|>user\n"
        for position, part in enumerate(turn.user):
            text += "\n" if position else ""
            if isinstance(part, str):
                text += part
                continue
            sample.extend(self.encode(text))
            text = ""
            self._medium(sample, part)
        sample.extend(self.encode(f"{text}<|im_end|>\n<|im_start|>assistant\n"))
        return sample

    def answer(self, turn: Turn, last: bool = True, forgotten: bool = False) -> Sample:
        """The reply with its labels; of a forgotten one only the text is left, and where it ended is not learned. What was
        heard stands before the last answer alone: a client keeps no more than the answers."""
        sample = Sample()
        heard = f"<{HEARD_TAG}>{turn.heard}</{HEARD_TAG}>" if turn.heard else ""
        drawn = self.media.drawn(turn.picture) if turn.picture else None
        spoken = self.media.answers.get(turn.text) if turn.spoken else None
        forgotten = forgotten and (drawn is not None or spoken is not None)
        if turn.written or drawn is None or forgotten:
            ids = self.encode((heard if last else "") + turn.text)
            sample.extend(ids, ids if last or not heard else None)
        if forgotten:
            sample.extend([self.end])
            return sample
        if drawn is not None:
            ids, kept = self.picture(drawn), self._dropped(drawn, self.image_mask, DRAWN_DROPOUT)
            sample.extend(self.picture(drawn, kept), ids)
        if spoken is not None:
            open_, close = self.blocks["discrete_audio"]
            codes = [self.audio_first + int(code) for code in spoken]
            kept = self._dropped(spoken, self.audio_mask, SPOKEN_DROPOUT)
            inputs = [self.audio_first + code if code >= 0 else self.audio_mask for code in kept]
            sample.extend([open_, *inputs, close], [open_, *codes, close])
        sample.extend([self.end], [self.end])
        return sample

    def picture(self, codes: np.ndarray, kept: list[int] | None = None) -> list[int]:
        """A discrete block: ratio, rows with their ends, end. Codes below 0 in `kept` are masked."""
        open_, close = self.blocks["discrete_image"]
        values = [int(code) for code in codes] if kept is None else kept
        ids = [open_, self.ratio]
        for row in range(GRID):
            ids += [self.image_first + code if code >= 0 else self.image_mask for code in values[row * GRID : (row + 1) * GRID]]
            ids.append(self.row_end)
        return [*ids, self.image_end, close]

    def _dropped(self, codes: np.ndarray, mask: int, dropout: tuple[tuple[float, ...], tuple[int, ...]]) -> list[int]:
        rate = self.random.choices(*dropout)[0] if self.training else 0.0
        return [-1 if rate and self.random.random() < rate else int(code) for code in codes]

    def _varied(self, features: np.ndarray, of_sound: bool) -> np.ndarray:
        """[m, width], noisier, and of a recording faster or slower and with a gap: or clips are learned by heart."""
        features = features.astype(np.float32)
        random = np.random.default_rng(self.random.getrandbits(64))
        if of_sound and len(features) > 2:
            places = np.arange(0, len(features) - 1, np.exp(random.uniform(-TEMPO, TEMPO)))
            before, share = places.astype(int), (places % 1)[:, None].astype(np.float32)
            features = features[before] * (1 - share) + features[before + 1] * share
            gap = random.integers(0, len(features))
            features[gap : gap + random.integers(0, min(LONGEST_GAP, 1 + len(features) // 8) + 1)] = 0
        spread = features.std() * random.uniform(0, NOISE)
        return (features + random.standard_normal(features.shape, np.float32) * spread).astype(np.float16)

    def _medium(self, sample: Sample, part: SeenPicture | HeardClip) -> None:
        """Both blocks of a user's picture or recording."""
        is_picture = isinstance(part, SeenPicture)
        medium: Medium = (
            self.media.seen(part, self.random) if isinstance(part, SeenPicture) else self.media.heard(part, self.random)
        )
        features = medium.features
        if self.training and self.random.random() < NO_FEATURES:
            features = None
        if self.training and features is not None:
            features = self._varied(features, of_sound=not is_picture)
        kept = self._dropped(medium.codes, -1, MEDIUM_DROPOUT if features is not None else ((0.0, 0.15), (2, 1)))
        if is_picture:
            sample.extend(self.picture(medium.codes, kept))
        else:
            if self.training and features is not None and self.random.random() < NO_SPEECH_CODES:
                kept = []
            open_, close = self.blocks["discrete_audio"]
            sample.extend([open_, *(self.audio_first + code if code >= 0 else self.audio_mask for code in kept), close])
        open_, close = self.blocks["image" if is_picture else "audio"]
        pad, places, rows = (
            (self.image_pad, sample.image_places, sample.image_features)
            if is_picture
            else (self.audio_pad, sample.audio_places, sample.audio_features)
        )
        count = len(features) if features is not None else 0
        start = len(sample.inputs) + 1
        sample.extend([open_, *[pad] * count, close])
        if features is not None:
            places += range(start, start + count)
            rows.append(features)


def _rounded(length: int) -> int:
    """Up to a multiple of `LENGTH_STEP`: of few different shapes, for the library compiles its kernels anew for each."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def collate(samples: list[Sample], padding: int) -> Batch:
    """Pads at the right, where causal attention never looks."""
    length = _rounded(max(len(sample.inputs) for sample in samples))
    inputs = torch.tensor([sample.inputs + [padding] * (length - len(sample.inputs)) for sample in samples])
    labels = torch.tensor([sample.labels + [IGNORED] * (length - len(sample.labels)) for sample in samples])
    gathered: list[Tensor] = []
    for kind in ("image", "audio"):
        places = [row * length + place for row, sample in enumerate(samples) for place in getattr(sample, f"{kind}_places")]
        features = [rows for sample in samples for rows in getattr(sample, f"{kind}_features")]
        stacked = torch.from_numpy(np.concatenate(features)).float() if features else torch.zeros(0, 0)
        gathered += [torch.tensor(places, dtype=torch.long), stacked]
    return Batch(inputs, labels, *gathered)


def batches(
    dialogues: Dialogues, renderer: Renderer, tokens: int, padding: int, turns: int, pool: int = 256
) -> Iterator[Batch]:
    """Endless batches of about `tokens` positions, each of conversations of like lengths, in random order."""
    while True:
        samples = sorted(
            (renderer.conversation(dialogues.conversation(turns)) for _ in range(pool)),
            key=lambda sample: len(sample.inputs),
        )
        groups: list[list[Sample]] = [[]]
        for sample in samples:
            if (len(groups[-1]) + 1) * _rounded(len(sample.inputs)) > tokens and groups[-1]:
                groups.append([])
            groups[-1].append(sample)
        renderer.random.shuffle(groups)
        yield from (collate(group, padding) for group in groups)
