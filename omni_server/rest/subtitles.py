"""Step 8. What was said in a recording, in every form of answer: json, text, verbose_json, srt and vtt. Sync, no sockets."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.responses import JSONResponse, PlainTextResponse, Response

from omni_server.hearing import Line
from omni_server.segments import Body
from omni_server.types import Usage

TIMED = ("verbose_json", "srt", "vtt")


def transcript_response(format: str, text: str, lines: Sequence[Line], usage: Usage, verbose: Body) -> Response:
    """`verbose` is what `verbose_json` has beside text and segments."""
    match format:
        case "text":
            return PlainTextResponse(text)
        case "srt":
            cues = "".join(f"{number}\n{_cue(line, ',')}" for number, line in enumerate(lines, start=1))
            return PlainTextResponse(cues, media_type="application/x-subrip")
        case "vtt":
            return PlainTextResponse("WEBVTT\n\n" + "".join(_cue(line, ".") for line in lines), media_type="text/vtt")
        case "verbose_json":
            return JSONResponse({**verbose, "text": text, "segments": _segments(lines, verbose["temperature"])})
        case _:
            return JSONResponse({"text": text, "usage": usage_body(usage)})


def usage_body(usage: Usage) -> Body:
    heard = usage.prompt_audio_tokens
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "input_token_details": {"audio_tokens": heard, "text_tokens": usage.prompt_tokens - heard},
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _segments(lines: Sequence[Line], temperature: float) -> list[Body]:
    # What this model does not measure is null: a made-up likelihood would be believed.
    unknown = {"avg_logprob": None, "compression_ratio": None, "no_speech_prob": None}
    return [
        {
            "id": number,
            "seek": 0,
            "start": round(line.start, 3),
            "end": round(line.end, 3),
            "text": line.text,
            "tokens": [],
            "temperature": temperature,
            **unknown,
        }
        for number, line in enumerate(lines)
    ]


def _cue(line: Line, point: str) -> str:
    words = " ".join(line.text.split())  # an empty line would end a cue
    return f"{_clock(line.start, point)} --> {_clock(line.end, point)}\n{words}\n\n"


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
