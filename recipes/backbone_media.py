"""Training step: the codes and encoder features that turns refer to, as far as they exist by now. Knows no tokens."""

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recipes.audio_exports import read_ragged
from recipes.domain import OUTPUT_VOICES, load_concepts
from recipes.speech import read_manifest
from recipes.turns import HeardClip, Recorded, SeenPicture

OTHER_STYLES = 0.4  # share of the user's pictures that are in any style at all, also those never drawn
ANSWER_VOICES = {"en": OUTPUT_VOICES["heart"], "ko": OUTPUT_VOICES["kumo"]}


@dataclass(slots=True)
class Medium:
    """One picture or recording as the server would hand it to the backbone."""

    codes: np.ndarray  # int [n]
    features: np.ndarray | None = None  # float16 [m, width]


@dataclass(slots=True)
class Media:
    """What is there of pictures and speech; `load_media` fills it, absent parts stay empty."""

    picture_codes: np.ndarray | None = None  # int [concepts, styles, cells], what is drawn
    seen_codes: np.ndarray | None = None  # int [variants, concepts, styles, cells], augmented
    seen_features: np.ndarray | None = None  # float16 [variants, concepts, styles, blocks, width]
    seen_styles: list[list[int]] = field(default_factory=list)  # of each concept, those that there are
    answers: dict[str, np.ndarray] = field(default_factory=dict)  # text -> codes
    clips: dict[str, list[Medium]] = field(default_factory=dict)  # path -> variants
    recordings: list[Recorded] = field(default_factory=list)

    def drawn(self, picture: SeenPicture) -> np.ndarray | None:
        return None if self.picture_codes is None else self.picture_codes[picture.concept, picture.style]

    def seen(self, picture: SeenPicture, chooser: random.Random) -> Medium:
        """A picture of the user's, another variant each time; the clean one now and then."""
        if self.seen_codes is None:
            assert self.picture_codes is not None
            return Medium(self.picture_codes[picture.concept, picture.style])
        variant, style = chooser.randrange(len(self.seen_codes)), picture.style
        if chooser.random() < OTHER_STYLES:
            style = chooser.choice(self.seen_styles[picture.concept])
        codes = self.seen_codes[variant, picture.concept, style]
        features = None if self.seen_features is None else self.seen_features[variant, picture.concept, style]
        return Medium(codes, features)

    def heard(self, clip: HeardClip, chooser: random.Random) -> Medium:
        return chooser.choice(self.clips[clip.path])


def load_media(cache: Path, split: str = "train") -> Media:
    """Everything in the cache that training may use; `split` chooses the recordings."""
    media = Media()
    if (cache / "image_codes.npz").exists():
        media.picture_codes = np.load(cache / "image_codes.npz")["codes"]
    seen = cache / "backbone" / f"seen_pictures_{split}.npz"
    if seen.exists():
        arrays = np.load(seen)
        media.seen_codes = arrays["codes"]
        media.seen_features = arrays.get("features")
        media.seen_styles = [np.flatnonzero(row).tolist() for row in arrays["present"]]
    _load_speech(cache, media, split)
    return media


def _load_speech(cache: Path, media: Media, split: str) -> None:
    codes = read_ragged(cache / "audio_codes.npz")
    features = read_ragged(cache / "audio_features.npz")
    names = load_concepts()
    for row in read_manifest(cache):
        path = row["path"]
        if path not in codes:
            continue
        if row["set"] == "output":
            if row["voice"] == ANSWER_VOICES[row["language"]]:
                media.answers[row["text"]] = codes[path]
                if row["concept"] is not None:  # a transcript is a bare name, said in the name's carrier
                    media.answers[names[row["concept"]].name(row["language"])] = codes[path]
        elif row["split"] == split:
            every = itertools.chain([path], (f"{path}#{variant}" for variant in itertools.count(1)))
            keys = list(itertools.takewhile(lambda key: key in codes and (key in features or not features), every))
            if not keys:
                continue
            media.clips[path] = [Medium(codes[key], features.get(key)) for key in keys]
            media.recordings.append(Recorded(path, row["text"], row["language"], row["concept"], row["template"]))
