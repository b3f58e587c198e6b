"""Grammars as texts, in the Lark that llguidance reads; vLLM reads the same with its backend `guidance`."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from didact.serving.engine.grammar.grammar import Grammar, GrammarError

_WHITESPACE = r"[ \t\r\n]{1,64}"
"""Between the parts of JSON. Without a limit small models write blanks until nothing is left for the answer."""
_MOST_CALLS = 8
_MOST_EXACT = 2**53
_BOUNDS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_BEFORE_NAME, _AFTER_NAME = '{"name": "', {"hermes": "arguments", "mistral": "arguments", "llama3": "parameters"}
_BETWEEN_CALLS = {"hermes": "\n<tool_call>\n", "mistral": ", "}
_ENDS = {"hermes": "}\n</tool_call>", "mistral": "}", "llama3": "}"}


def json_of(schema: Mapping[str, Any] | bool, field: str) -> Grammar:
    """JSON that fits a schema; `field` is what asks for it.

    Raises:
        GrammarError: a bound that the library would take for another one.
    """
    _check_bounds(schema, field)
    return Grammar(f"answer: {_json(schema)}\n", field)


def any_object(field: str) -> Grammar:
    """Any JSON object."""
    return json_of({"type": "object"}, field)


def matching(pattern: str, field: str) -> Grammar:
    """Text that matches a regular expression from its beginning to its end."""
    escaped = re.sub(r"\\.|/|\n", lambda found: {"/": r"\/", "\n": r"\n"}.get(found[0], found[0]), pattern, flags=re.S)
    return Grammar(f"answer: /{escaped}/\n", field)


def one_of(texts: Sequence[str], field: str) -> Grammar:
    """One of some texts."""
    return Grammar(f"answer: {' | '.join(map(_literal, texts))}\n", field)


def written(grammar: str, field: str) -> Grammar:
    """A grammar that somebody wrote, in Lark or GBNF, with its own `start` or `root`."""
    return Grammar(grammar, field, begin="")


def behind_thoughts(grammar: Grammar, marks: tuple[str, str], begun: bool) -> Grammar:
    """The same for a template whose answers may think first, in any words.

    Args:
        grammar: what comes behind the thoughts; one that somebody wrote stays as it is.
        marks: what thoughts stand between.
        begun: the prompt ends with the first mark.
    """
    if not grammar.begin:
        return grammar
    first = "" if begun else f"{_literal(marks[0])} "
    rules = f"thought: {first}thinking /\\s{{0,8}}/\nthinking[suffix={_literal(marks[1])}]: /(?s:.*)/\n"
    begin = "thought answer" if begun else "(thought)? answer"
    return replace(grammar, rules=grammar.rules + rules, begin=begin)


def calls_of(
    form: Literal["hermes", "mistral", "llama3"],
    functions: Sequence[Mapping[str, Any]],
    name: str,
    *,
    one_call: bool = False,
) -> Grammar:
    """A call of a function, from where the prompt has begun it; the arguments fit their schema.

    What a grammar cannot say of a schema is left out, unless the function is `strict`.

    Args:
        form: how the template writes calls.
        functions: as OpenAI's clients offer them.
        name: the one that must be called, whose name the prompt holds already; empty for any, and for several calls.
        one_call: not for several calls.
    """
    offered = [each for each in functions if not name or each["name"] == name]
    end = _literal(_ENDS[form])
    rules = [f"arguments{number}: {_json(_arguments(each))}\n" for number, each in enumerate(offered)]
    if name:
        begin = f"arguments0 {end}"
    else:
        heads = [f'{each["name"]}", "{_AFTER_NAME[form]}": ' for each in offered]
        either = " | ".join(f"{_literal(head)} arguments{number} {end}" for number, head in enumerate(heads))
        rules.append(f"call: {either}\n")
        more = _literal(_BETWEEN_CALLS.get(form, "") + _BEFORE_NAME)
        several = form in _BETWEEN_CALLS and not one_call
        begin = f"call ({more} call){{0,{_MOST_CALLS - 1}}}" if several else "call"
    return Grammar("".join(rules), "tools", begin + (' "]"' if form == "mistral" else ""))


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    schema = dict(function.get("parameters") or {"type": "object"})
    if function.get("strict"):
        _check_bounds(schema, "tools")
        return schema
    return {**_without_beyond(schema), "x-guidance": {"lenient": True}}


def _check_bounds(schema: Any, field: str) -> None:
    if (beyond := next(_beyond(schema), None)) is not None:
        raise GrammarError(f"{field}: {beyond[0]} is {beyond[1]}; expected a number from -2^53 to 2^53")


def _is_beyond(name: Any, value: Any) -> bool:
    return name in _BOUNDS and isinstance(value, int | float) and abs(value) > _MOST_EXACT


def _beyond(schema: Any) -> Iterator[tuple[str, float]]:
    """Bounds of numbers that no double holds exactly; the library makes others of them, or ends."""
    members = schema.items() if isinstance(schema, Mapping) else enumerate(schema) if isinstance(schema, list) else ()
    for name, value in members:
        if _is_beyond(name, value):
            yield str(name), value
        yield from _beyond(value)


def _without_beyond(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_beyond(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {name: _without_beyond(value) for name, value in schema.items() if not _is_beyond(name, value)}


def _json(schema: Mapping[str, Any] | bool) -> str:
    if isinstance(schema, bool):
        return f"%json {json.dumps(schema)}"
    options = schema.get("x-guidance")
    lenient = {"lenient": True} if isinstance(options, Mapping) and options.get("lenient") is True else {}
    return f"%json {json.dumps({**schema, 'x-guidance': {'whitespace_pattern': _WHITESPACE, **lenient}})}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
