"""The precisions that this machine can multiply in."""

from decoders.audio.compiled import multiplies_bfloat16

PRECISIONS = ["float32", *(["bfloat16"] if multiplies_bfloat16() else [])]
