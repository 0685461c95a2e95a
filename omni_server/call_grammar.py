"""Step 5. How a model writes its calls, read off its own chat template, and the grammar of calls that must be made.

The grammar is a structural tag, the form in which vLLM's xgrammar backend takes markup around JSON schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOOL, KEY, VALUE = "a_tool_of_nobody", "a_key_of_nobody", "a-value-of-nobody"
PROBES = tuple({"type": "function", "function": {"name": TOOL, "arguments": {KEY: VALUE}}} for _ in range(2))
_KEYED = re.compile(rf"(\s*){TOOL}(\s*)<arg_key>{KEY}</arg_key>\s*<arg_value>{VALUE}</arg_value>(\s*)")
KEYED_MARKS = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")


@dataclass(frozen=True, slots=True)
class CallForm:
    """`before`, the name, `behind`, the arguments, `after`; `between` two calls. `keyed`: the arguments are written key by
    key, and not as one JSON object."""

    before: str
    behind: str
    after: str
    between: str
    keyed: bool
    tag: str


def read_call_form(written: str, tag: str) -> CallForm | None:
    """`written` is what a template makes of PROBES; None where it does not write them between `tag`s, or in another way."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", written, re.DOTALL)
    inner = next((text for text in found if TOOL in text and VALUE in text), None)
    if inner is None:
        return None
    around = re.search(rf"</{tag}>(\s*)<{tag}>", written)
    between = around[1] if around is not None else "\n"
    if keyed := _KEYED.fullmatch(inner):
        return CallForm(f"<{tag}>{keyed[1]}", keyed[2], f"</{tag}>", between, keyed=True, tag=tag)
    head, arguments, tail = inner.partition(json.dumps({KEY: VALUE}))
    before, name, behind = head.partition(TOOL)
    try:
        said = json.loads(inner)
    except ValueError:
        return None
    if not arguments or not name or said != {"name": TOOL, "arguments": {KEY: VALUE}}:
        return None
    return CallForm(f"<{tag}>{before}", behind, f"{tail}</{tag}>", between, keyed=False, tag=tag)


def call_grammar(form: CallForm, tools: Sequence[Mapping[str, Any]], *, several: bool) -> dict[str, Any]:
    """A reply that calls at least one of the tools, with arguments after its schema, and says nothing else."""
    calls = [_call(form, tool["function"]) for tool in tools]
    listed = {"type": "tags_with_separator", "tags": calls, "separator": form.between, "at_least_one": True}
    return {"type": "structural_tag", "format": {**listed, "stop_after_first": not several}}


def _call(form: CallForm, function: Mapping[str, Any]) -> dict[str, Any]:
    name = function["name"] if form.keyed else json.dumps(function["name"], ensure_ascii=False)[1:-1]
    arguments = {
        "type": "json_schema",
        "json_schema": function.get("parameters") or {"type": "object"},
        "style": "glm_xml" if form.keyed else "json",
        "max_whitespace_cnt": 1,  # white space without end is JSON too, and small models like it
        # A value that holds the markup itself would end the call.
        "excludes": [f"<{form.tag}>", f"</{form.tag}>", *(KEYED_MARKS if form.keyed else ())],
    }
    return {"type": "tag", "begin": f"{form.before}{name}{form.behind}", "content": arguments, "end": form.after}
