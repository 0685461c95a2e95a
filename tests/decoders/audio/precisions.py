"""The precisions that this machine can multiply in."""

from decoders.audio import tiles

PRECISIONS = ["float32", *(["bfloat16"] if tiles.available() else [])]
