"""Step 1. A multipart form: its files and the text fields beside them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Mapping

from fastapi.requests import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from omni_server.errors import RequestError
from omni_server.rest.body import read_body
from omni_server.wording import shown

FORM_TYPE = "multipart/form-data"
MOST_FIELDS = 64
PIECE = 1 << 18


Files = dict[str, tuple[bytes, ...]]


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_file_form(request: Request, limit: int, param: str = "file") -> tuple[bytes, dict[str, object]]:
    """The one file of a form, and all other fields; those whose name ends in `[]` are lists."""
    files, fields = await read_files_form(request, limit, {param: 1})
    if param not in files:
        raise RequestError(f"`{param}` is missing; it is required", param=param)
    return files[param][0], fields


async def read_files_form(request: Request, limit: int, most: Mapping[str, int]) -> tuple[Files, dict[str, object]]:
    """Files by the names in `most`, which says how many of each there may be, and all other fields."""
    if (kind := content_type(request)) != FORM_TYPE:
        raise RequestError(f"The body is {shown(kind or 'of no named type')}; expected `{FORM_TYPE}` with {_listed(most)}")
    body = await read_body(request, limit)
    parser = MultiPartParser(request.headers, _pieces(body), max_files=sum(most.values()), max_fields=MOST_FIELDS)
    parser.spool_max_size = len(body) + 1  # in memory, where it is already: a full disk must not refuse a recording
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as problem:
        raise RequestError(f"The body is not a form that can be read: {problem}") from None
    try:
        items = form.multi_items()
        fields = _text_fields(items)
        for name in most:
            if name in fields:
                raise RequestError(f"`{name}` is the text {shown(fields[name])}; expected a part with a `filename`", param=name)
        return await _files(items, most), fields
    finally:
        await form.close()


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    """Others get their turn between two pieces: the parser is fast, but a recording is megabytes."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
        await asyncio.sleep(0)


async def _files(items: list[tuple[str, UploadFile | str]], most: Mapping[str, int]) -> Files:
    """`image` and `image[]` are the same: clients send the one for a file and the other for a list of them."""
    files: Files = {}
    for name, part in items:
        if isinstance(part, str):
            continue
        place = name.removesuffix("[]")
        if place not in most:
            raise RequestError(f"`{name}` is a file; the files of this request are {_listed(most)}", param=name)
        files[place] = (*files.get(place, ()), await part.read())
        if len(files[place]) > most[place]:
            raise RequestError(f"`{place}` is there `{len(files[place])}` times; expected at most {most[place]}", param=place)
    return files


def _text_fields(items: list[tuple[str, UploadFile | str]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in items:
        if not isinstance(value, str):
            continue
        if name.endswith("[]"):
            values = fields.setdefault(name, [])
            assert isinstance(values, list)
            values.append(value)
        elif place := re.fullmatch(r"(\w+)\[(\w+)\]", name):  # a key of an object
            members = fields.setdefault(place[1], {})
            if not isinstance(members, dict):
                raise RequestError(f"`{place[1]}` is there as a text and as `{name}`; expected one of them", param=place[1])
            members[place[2]] = value
        elif name in fields:
            raise RequestError(f"`{name}` is there twice, last as {shown(value)}; expected it once", param=name)
        else:
            fields[name] = value
    return fields


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
