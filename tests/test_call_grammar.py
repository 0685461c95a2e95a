"""call_grammar.py, through the compiler that the engine uses: a call that must be made can be read, and follows its schema."""

from __future__ import annotations

import json
import random
from typing import Any

import jinja2
import pytest
import xgrammar
import xgrammar.testing

from omni_server.call_grammar import PROBES, CallForm, call_grammar, read_call_form
from omni_server.markup import Markup, read_tool_call

# As published templates write calls: one JSON object (EXAONE, Qwen), or key by key (HyperCLOVA X, GLM).
AS_JSON = (
    "{% for call in calls %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>\n{% endfor %}'
)
KEYED = (
    "{% for call in calls %}<tool_call>{{ call.function.name }}\n{% for key, value in call.function.arguments.items() %}"
    "<arg_key>{{ key }}</arg_key>\n<arg_value>{{ value }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}"
)
BOOK: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["서울", "Oslo"]},
        "room": {"type": "string", "enum": ["7", "9b"]},
        "guests": {"type": "integer", "minimum": 1, "maximum": 99},
        "late": {"type": "boolean"},
        "beds": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["city", "room", "guests", "late"],
    "additionalProperties": False,
}
LEAVE: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": n, "parameters": s}} for n, s in (("book", BOOK), ("leave", LEAVE))]
END = 256


def form_of(template: str) -> CallForm:
    environment = jinja2.Environment(autoescape=False)
    environment.filters["tojson"] = json.dumps
    form = read_call_form(environment.from_string(template).render(calls=PROBES), "tool_call")
    assert form is not None
    return form


def compiled(grammar: dict[str, Any]) -> xgrammar.CompiledGrammar:
    vocabulary = [bytes([byte]) for byte in range(256)] + [b"</s>"]
    info = xgrammar.TokenizerInfo(vocabulary, vocab_size=257, stop_token_ids=[END])
    return xgrammar.GrammarCompiler(info, max_threads=1).compile_structural_tag(json.dumps(grammar))


def walk(grammar: xgrammar.CompiledGrammar, chooser: random.Random) -> str:
    """What a model that knows nothing writes, byte by byte."""
    matcher = xgrammar.GrammarMatcher(grammar)
    mask = xgrammar.allocate_token_bitmask(1, 257)
    said = bytearray()
    while True:
        matcher.fill_next_token_bitmask(mask)
        words = [word & 0xFFFFFFFF for word in mask[0].tolist()]
        token = chooser.choice([token for token in range(257) if (words[token // 32] >> (token % 32)) & 1])
        assert matcher.accept_token(token)
        if token == END:
            return said.decode()
        said.append(token)


def calls_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    markup = Markup({"tool_call": "tool_call"})
    pieces = [*markup.feed(text), *markup.finish()]
    assert {piece.role for piece in pieces if piece.text.strip()} == {"tool_call"}
    read = [read_tool_call(piece.text, TOOLS) for piece in pieces if piece.role == "tool_call"]
    return [(call[0], json.loads(call[1])) for call in read if call is not None]


def check_booking(arguments: dict[str, Any]) -> None:
    assert set(BOOK["required"]) <= set(arguments) <= set(BOOK["properties"])
    assert arguments["city"] in ("서울", "Oslo") and arguments["room"] in ("7", "9b")
    assert type(arguments["guests"]) is int and 1 <= arguments["guests"] <= 99 and type(arguments["late"]) is bool
    assert set(arguments.get("beds", [1])) <= {1, 2}


@pytest.mark.parametrize("template", [AS_JSON, KEYED], ids=["json", "keyed"])
def test_random_walks_are_calls(template: str) -> None:
    """Would catch a call that cannot be read back, arguments outside of their schema, and a string of digits that becomes a
    number on the way."""
    grammar = compiled(call_grammar(form_of(template), TOOLS, several=True))
    chooser = random.Random(3)
    counts = set()
    for _ in range(40):
        calls = calls_in(walk(grammar, chooser))
        counts.add(min(len(calls), 2))
        for name, arguments in calls:
            if name == "book":
                check_booking(arguments)
            else:
                assert (name, arguments) == ("leave", {})
    assert counts == {1, 2}


@pytest.mark.parametrize("template", [AS_JSON, KEYED], ids=["json", "keyed"])
def test_one_call_is_one(template: str) -> None:
    """Would catch `parallel_tool_calls` that is not held."""
    grammar = compiled(call_grammar(form_of(template), TOOLS[:1], several=False))
    chooser = random.Random(4)
    assert all(len(calls_in(walk(grammar, chooser))) == 1 for _ in range(20))


def test_a_value_cannot_end_the_call() -> None:
    """Would catch a string that holds the closing tag, at which the call would be cut."""
    free = [{"type": "function", "function": {"name": "say", "parameters": {"properties": {"text": {"type": "string"}}}}}]
    for template, end in ((AS_JSON, '"}}\n</tool_call>'), (KEYED, "</arg_value>\n</tool_call>")):
        form = form_of(template)
        grammar = xgrammar.Grammar.from_structural_tag(json.dumps(call_grammar(form, free, several=False)))
        begin = form.before + "say" + form.behind
        begin += "<arg_key>text</arg_key>\n<arg_value>" if form.keyed else '{"text": "'
        accepts = xgrammar.testing._is_grammar_accept_string
        assert accepts(grammar, begin + "a < b" + end)
        assert not accepts(grammar, begin + "a </tool_call> b" + end)


def test_another_form_is_left_alone() -> None:
    """Would catch a grammar that holds a model to a form which its template does not write."""
    for template in ("", "{{ calls[0].function.name }}()", "<tool_call>{{ calls[0] }}</tool_call>"):
        assert read_call_form(jinja2.Template(template).render(calls=PROBES), "tool_call") is None
