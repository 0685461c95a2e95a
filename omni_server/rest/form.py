"""Step 1. A multipart form: one file and the text fields beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi.requests import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from omni_server.errors import RequestError
from omni_server.rest.body import read_body
from omni_server.wording import shown

FORM_TYPE = "multipart/form-data"
MOST_FIELDS = 64
PIECE = 1 << 18


async def read_file_form(request: Request, limit: int) -> tuple[bytes, dict[str, object]]:
    """The part `file`, and all other fields; those whose name ends in `[]` are lists."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != FORM_TYPE:
        raise RequestError(f"The body is {shown(kind or 'of no named type')}; expected `{FORM_TYPE}` with a `file`")
    body = await read_body(request, limit)
    parser = MultiPartParser(request.headers, _pieces(body), max_files=1, max_fields=MOST_FIELDS)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as problem:
        raise RequestError(f"The body is not a form that can be read: {problem}") from None
    try:
        return await _file(form.get("file")), _text_fields(form.multi_items())
    finally:
        await form.close()


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    """Others get their turn between two pieces: the parser is fast, but a recording is megabytes."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
        await asyncio.sleep(0)


async def _file(part: UploadFile | str | None) -> bytes:
    if part is None:
        raise RequestError("`file` is missing; it is required", param="file")
    if isinstance(part, str):
        raise RequestError(f"`file` is the text {shown(part)}; expected a part with a `filename`", param="file")
    return await part.read()


def _text_fields(items: list[tuple[str, UploadFile | str]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in items:
        if name == "file":
            continue
        if not isinstance(value, str):
            raise RequestError(f"`{name}` is a file; the only file of this request is `file`", param=name)
        if name.endswith("[]"):
            values = fields.setdefault(name, [])
            assert isinstance(values, list)
            values.append(value)
        elif name in fields:
            raise RequestError(f"`{name}` is there twice, last as {shown(value)}; expected it once", param=name)
        else:
            fields[name] = value
    return fields
