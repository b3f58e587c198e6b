"""Turns in any order -> an optional system message, then user and assistant by turns, ending with the assistant.

What is done with each irregularity is a policy of the source, `options.turns`, and what was done is counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from didact.datasets.conversation import Message, Role, ToolUse
from didact.datasets.forms.turns.tools import check_tool_order
from didact.datasets.rows.fields import joined
from didact.datasets.rows.options import TurnPolicies
from didact.datasets.rows.raw_row import BadRow


def in_order(messages: Sequence[Message], policies: TurnPolicies, done: Counter[str]) -> list[Message]:
    """The turns of one conversation in the order that all data takes.

    Args:
        messages: as they stand in the row.
        policies: what is done with irregular ones.
        done: counts rows by the policy that changed them.

    Raises:
        BadRow: a policy refuses them, or no question with an answer is left.
    """
    if _is_regular(messages):
        return list(messages)
    start = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    turns = _with_later_system(messages, start, policies, done)
    before, turns = _joined(turns[:start], policies, done), _joined(turns[start:], policies, done)
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), len(turns))
    if first:
        _apply("assistant_first", policies.assistant_first, "the chat begins with the assistant", done)
    last = next((place for place in range(len(turns), first, -1) if turns[place - 1].role == "assistant"), first)
    if last < len(turns):
        _apply("user_last", policies.user_last, "the chat ends with the user or with a tool's result", done)
    ordered = [*before, *turns[first:last]]
    if not _is_regular(ordered):
        found = ", ".join(message.role for message in messages[:8]) + (", ..." if len(messages) > 8 else "")
        raise BadRow("wrong_turns", f"found {found or 'no turn'}; expected a question and its answer, by turns")
    return ordered


def _is_regular(messages: Sequence[Message]) -> bool:
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if turns and turns[0].role != "user":
        return False
    if any(message.role == "tool" for message in turns):
        turns = check_tool_order(turns)
    expected: list[Role] = ["user", "assistant"] * (len(turns) // 2)
    return bool(turns) and [message.role for message in turns] == expected


def _with_later_system(
    messages: Sequence[Message], start: int, policies: TurnPolicies, done: Counter[str]
) -> list[Message]:
    later = [message.role == "system" for message in messages[start:]]
    if not any(later):
        return list(messages)
    _apply("system_later", policies.system_later, "a system message stands later on", done)
    turns = [replace(message, role="user") if message.role == "system" else message for message in messages[start:]]
    # That they follow each other is part of this policy and not of the one for two turns of one side.
    return [*messages[:start], *_merged(turns, [False, *(one or two for one, two in pairwise(later))])]


def _joined(turns: list[Message], policies: TurnPolicies, done: Counter[str]) -> list[Message]:
    # Results of several calls follow each other.
    follows = [False, *(one.role == two.role != "tool" for one, two in pairwise(turns))]
    if not any(follows):
        return turns
    _apply("same_side", policies.same_side, "two turns of one side follow each other", done)
    return _merged(turns, follows)


def _merged(turns: list[Message], follows: Sequence[bool]) -> list[Message]:
    """Turns that follow one of their side, and may be joined to it, with a blank line between."""
    merged: list[Message] = []
    for turn, joins in zip(turns, follows, strict=False):
        if not merged or not joins or merged[-1].role != turn.role:
            merged.append(turn)
            continue
        if merged[-1].learned != turn.learned:
            raise BadRow("wrong_turns", "of two turns of the assistant that follow each other only one is learned")
        both = joined(merged[-1].content, turn.content)
        merged[-1] = replace(turn, content=both, tools=_all_calls(merged[-1].tools, turn.tools))
    return merged


def _all_calls(one: ToolUse | None, two: ToolUse | None) -> ToolUse | None:
    if one is None or two is None:
        return one or two
    return replace(two, calls=(*one.calls, *two.calls))


def _apply(name: str, policy: str, found: str, done: Counter[str]) -> None:
    if policy == "refuse":
        raise BadRow("wrong_turns", f"{found}, which options.turns.{name}: refuse does not take")
    done[f"{name}: {policy}"] += 1
