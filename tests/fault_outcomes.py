"""How a request ends by step, fault and door: what tests/test_fault_matrix.py holds, and docs/operations.md shows."""

from __future__ import annotations

from tests.fault_doors import DOORS, STEPS

FAULTS = ("kill", "hang", "slow", "corrupt")
# The step in a reader's words; then the code of the error, `whole` where there is none.
CODES: dict[str, tuple[str, dict[str, str]]] = {
    "fetch": ("a URL is fetched", {"kill": "invalid_media", "hang": "invalid_media", "corrupt": "invalid_media"}),
    "load": ("a medium is decoded", {"kill": "internal_error", "hang": "stalled", "corrupt": "invalid_media"}),
    "encode": ("the encoder", {"kill": "encode_failed", "hang": "modality_down", "corrupt": "encode_failed"}),
    "look up": ("the codebook", {"kill": "encode_failed", "hang": "modality_down", "corrupt": "encode_failed"}),
    "prompt": ("the prompt is built", {"kill": "internal_error", "hang": "stalled", "corrupt": "internal_error"}),
    **{
        f"backbone {number}": (words, {"kill": "engine_unavailable", "hang": "engine_unavailable", "corrupt": "internal_error"})
        for number, words in (
            (0, "the backbone, before its first token; corrupt: a token that the router cannot place"),
            (1, "the same, midway"),
            (3, "the same, at the end"),
        )
    },
    **{
        f"{medium} {call}": (
            f"the {maker}: {words}",
            {"kill": "decode_failed", "hang": "modality_down"} | ({} if call == "open" else {"corrupt": "decode_failed"}),
        )
        for medium, maker in (("audio", "vocoder"), ("image", "image decoder"))
        for call, words in (("open", "a span begins"), ("feed", "codes come"), ("finish", "a span ends"))
    },
    "store": (
        "a file is stored",
        {"kill": "storage_unavailable", "hang": "storage_unavailable", "corrupt": "part not_found"},
    ),
}
# These hand out one medium, so without it there is nothing left; the live wire has one kind of error for all.
WHOLE_OR_NOTHING = ("images", "images/edits", "speech", "Synthesize", "Riva synthesis", "live")


def _ending(step: str, code: str, door: str) -> str:
    decodes = step.partition(" ")[0] in ("audio", "image") and code != "whole"
    return f"part {code}" if decodes and door not in WHOLE_OR_NOTHING else code


OUTCOMES = {
    step: {
        fault: {door: _ending(step, code, door) for door in DOORS if step in STEPS[door]}
        for fault, code in ({"slow": "whole"} | codes).items()
    }
    for step, (_, codes) in CODES.items()
}


def table() -> str:
    lines = ["| step | doors that come by it | killed | hangs | slow | spoilt |", "|---|---|---|---|---|---|"]
    for step, (words, codes) in CODES.items():
        doors = [door for door in DOORS if step in STEPS[door]]
        met = "all" if len(doors) == len(DOORS) else ", ".join(doors)
        told = [codes.get(fault, "whole" if fault == "slow" else "") for fault in FAULTS]
        lines.append(f"| {words} | {met} | " + " | ".join(f"`{code}`" if code else "" for code in told) + " |")
    return "\n".join(lines)
