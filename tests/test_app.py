"""The composition root: what a deployment chooses reaches the models."""

from dataclasses import replace

from omni_server.app import _load_components
from omni_server.checkpoint import read_checkpoint
from omni_server.config import EMBEDDED_CHECKPOINT, read_settings
from omni_server.placement import place
from omni_server.types import DecodeOptions, Modality


def test_the_choices_about_voices_reach_the_vocoder() -> None:
    """Catches a setting that is read, shown by --help, and forgotten on the way."""
    checkpoint = read_checkpoint(EMBEDDED_CHECKPOINT)
    folders = {name: checkpoint.folders[name] for name in ("backbone", "audio_decoder")}
    only_voice = replace(checkpoint, folders=folders)
    settings = read_settings({"threads": "1"}, {"OMNI_VOICE_LOOK_AHEAD": "exact", "OMNI_VOICE_PRECISION": "float32"})
    _, makers = _load_components(only_voice, settings, place(0))
    decoder = makers[Modality.AUDIO]._decoder
    first = decoder.streaming.first_chunk_units
    assert decoder.precision == "float32"
    stream, right = decoder.open(DecodeOptions()), decoder.network.context()[1]
    assert stream.feed([0] * (first + right - 1)) == []
    assert len(stream.feed([0])) == 1


def test_every_model_passes_its_own_probe() -> None:
    """Catches a probe that a healthy model cannot pass: after the first bad request its modality would stay down for ever."""
    checkpoint = read_checkpoint(EMBEDDED_CHECKPOINT)
    senses, makers = _load_components(checkpoint, read_settings({"threads": "1"}, {}), place(0))
    assert senses.keys() == {Modality.IMAGE, Modality.AUDIO} == makers.keys()
    for sense in senses.values():
        sense._probe(False)
    for maker in makers.values():
        before = maker._decoder
        maker._probe(True)
        assert maker._decoder is not before
