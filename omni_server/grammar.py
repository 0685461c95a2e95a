"""Step 5. The span grammar: which token ids may follow which, from the checkpoint's bands and the request's modalities.

Written in Lark over token-id ranges, the form that vLLM's xgrammar backend compiles on CPU and GPU and with speculative
decoding. The end of the turn is not in the grammar: the engine allows it wherever the grammar is complete.
"""

from __future__ import annotations

from omni_server.checkpoint import Checkpoint
from omni_server.types import Band, Modality


def span_grammar(checkpoint: Checkpoint, modalities: frozenset[Modality], *, may_call: bool = False) -> str | None:
    """A Lark grammar of well-formed replies; None where the checkpoint has no bands, so that every id is text.

    Text alone: text. With pictures allowed: text and pictures in any order. With speech asked for: at least one span of
    speech, so that a reply that was asked for aloud is always heard; but where the model may call a tool instead, for then
    the call is the reply.
    """
    if not checkpoint.bands:
        return None
    media = modalities & checkpoint.modalities_out
    rules = [f"text: {' | '.join(_range(first, size) for first, size in checkpoint.text_ranges)}"]
    quiet = ["text"]
    if Modality.IMAGE in media:
        rules.append(f"image: {_image(checkpoint)}")
        quiet.append("image")
    rules.append(f"quiet: {' | '.join(quiet)}")
    if Modality.AUDIO in media:
        rules.append(f"audio: {_audio(checkpoint.bands[Modality.AUDIO])}")
        spoken = "quiet* audio (quiet+ audio)* quiet*"
        rules.insert(0, f"start: {spoken}{' | quiet+' if may_call else ''}")
    else:
        rules.insert(0, "start: quiet+")
    return "\n".join(rules) + "\n"


def _range(first: int, size: int) -> str:
    return f"<[{first}-{first + size - 1}]>"


def _token(token: int) -> str:
    return f"<[{token}]>"


def _audio(band: Band) -> str:
    return f"{_token(band.open)} {_range(band.first, band.size)}+ {_token(band.close)}"


def _image(checkpoint: Checkpoint) -> str:
    band, grid = checkpoint.bands[Modality.IMAGE], checkpoint.image
    assert grid is not None  # read_checkpoint gives a grid wherever there is an image component
    ratio = "(" + " | ".join(_token(token) for token in sorted(set(grid.ratios.values()))) + ")"
    row = " ".join([_range(band.first, band.size)] * grid.columns + [_token(grid.end_of_line)])
    rows = " ".join(["image_row"] * grid.rows)
    return f"{_token(band.open)} {ratio} {rows} {_token(grid.end_of_frame)} {_token(band.close)}\nimage_row: {row}"
