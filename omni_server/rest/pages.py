"""Steps 1 and 8. A long list page by page, as OpenAI's clients turn the pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from omni_server.errors import RequestError
from omni_server.rest.fields import FormFields
from omni_server.segments import Body
from omni_server.wording import shown


class Page(FormFields):
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


def query_of(kind: type[Page]) -> list[dict[str, Any]]:
    """The parameters of a page, for the document of this server."""
    return [{"name": name, "in": "query", "schema": schema} for name, schema in kind.model_json_schema()["properties"].items()]


def page(bodies: Sequence[Body], asked: Page, kind: str) -> Body:
    """Those after the one that is named `after`, in the order of the list; `kind` is what they are called."""
    places = {body["id"]: place for place, body in enumerate(bodies)}
    if asked.after is not None and asked.after not in places:
        raise RequestError(f"`after` is {shown(asked.after)}; expected the id of {kind} in the list", param="after")
    first = places[asked.after] + 1 if asked.after is not None else 0
    data = list(bodies[first : first + asked.limit])
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": first + asked.limit < len(bodies)}
