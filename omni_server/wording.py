"""How a client's value appears in an error message: in backticks, short, on one line."""

from __future__ import annotations

LONGEST = 60


def shown(value: object) -> str:
    """`value` in backticks. Media arrive as megabytes of base64, so only the beginning of a long value is shown."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(letter if letter.isprintable() else " " for letter in text[: LONGEST + 1]).replace("`", "'")
    return f"`{text[:LONGEST]}…`" if len(text) > LONGEST else f"`{text}`"
