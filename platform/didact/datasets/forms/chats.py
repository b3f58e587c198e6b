"""Records of talk -> turns: instructions, pairs, chats, transcripts, preferences."""

import re
from typing import Any

from didact.datasets.conversation import Message, Role
from didact.datasets.forms.drafts import Draft, RowSettings, pair
from didact.datasets.forms.tool_turns import tool_message, with_tools
from didact.datasets.forms.transcripts import clean, is_history, split_transcript
from didact.datasets.rows.fields import Record, first_of, inner, items, joined, optional_text, take, text, texts
from didact.datasets.rows.raw_row import BadRow

ANSWERS = ("output", "response")
CONTEXTS = ("input", "context")
CHATS = ("conversations", "conversation", "items")
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("inputs", "targets"),
    ("input", "target"),
    ("instruction", "completion"),
    ("question", "response"),
)
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}
_MESSAGE_ROLES = ("system", "developer", "user", "assistant")
_NONE = re.compile(r"none\.?", re.IGNORECASE)
_MOSS_MARK = re.compile(r"\A<\|[^|<>]+\|>:?")


def alpaca(record: Record, _: RowSettings) -> Draft:
    """Instruction, optional input or context, output or response, and optional history of (question, answer) pairs."""
    instruction, output = text(record, "instruction"), text(record, first_of(record, ANSWERS))
    given = optional_text(record, first_of(record, CONTEXTS))
    if is_history(instruction) and not given.strip():
        return Draft([*split_transcript(instruction)[:-1], Message("assistant", output)])
    earlier = _pair_turns(record, "history") if record.get("history") else []
    return Draft([*earlier, Message("user", joined(instruction, given)), Message("assistant", output)])


def seed_task(record: Record, _: RowSettings) -> Draft:
    """A task with instances, each an input and an output: the first instance."""
    instances = items(record, "instances")
    if not instances or not isinstance(instances[0], dict):
        raise BadRow("wrong_type", "field 'instances' holds no object with input and output")
    asked = joined(text(record, "instruction"), optional_text(instances[0], "input"))
    return pair(asked, text(instances[0], "output"))


def prompt_completion(record: Record, _: RowSettings) -> Draft:
    """A prompt and what follows it, under any of the names in `PAIRS`."""
    prompt, completion = next((names for names in PAIRS if set(names) <= record.keys()), PAIRS[0])
    return pair(text(record, prompt), text(record, completion))


def messages(record: Record, _: RowSettings) -> Draft:
    """Turns with role and content."""
    turns = [_turn(turn, "role", "content", _MESSAGE_ROLES) for turn in items(record, "messages")]
    return Draft(with_tools(record, turns))


def sharegpt(record: Record, _: RowSettings) -> Draft:
    """Turns with from and value, with role and content, or with a question and its answer in each."""
    turns: list[Message] = []
    for turn in items(record, first_of(record, CHATS)):
        if not isinstance(turn, dict) or "from" in turn:
            turns.append(_turn(turn, "from", "value", tuple(_ROLES)))
        elif "role" in turn:
            turns.append(_turn(turn, "role", "content", _MESSAGE_ROLES))
        else:
            asked, said = ("human", "assistant") if "human" in turn else ("question", "answer")
            turns += [Message("user", text(turn, asked)), Message("assistant", text(turn, said))]
    before = optional_text(record, "instruction") or optional_text(record, "system")
    if before.strip() and turns and turns[0].role != "system":
        turns.insert(0, Message("system", before))
    return Draft(with_tools(record, turns))


def turn_list(record: Record, _: RowSettings) -> Draft:
    """A list of texts, the user first, or of (question, answer) pairs."""
    data = items(record, "data")
    if data and isinstance(data[0], list):
        return Draft(_pair_turns(record, "data"))
    return Draft([Message(("user", "assistant")[place % 2], turn) for place, turn in enumerate(texts(record, "data"))])


def dialogue(record: Record, _: RowSettings) -> Draft:
    """Context and response: two texts, or two lists of turns that alternate."""
    if isinstance(take(record, "context"), str):
        return pair(text(record, "context"), text(record, "response"))
    asked, said = texts(record, "context"), texts(record, "response")
    if len(asked) != len(said):
        raise BadRow("wrong_turns", f"{len(asked)} contexts and {len(said)} responses; expected as many")
    return Draft(_alternating(zip(asked, said, strict=True)))


def transcript(record: Record, _: RowSettings) -> Draft:
    """One text with marks for who speaks."""
    return Draft(split_transcript(text(record, first_of(record, ("text", "plain_text", "transcript", "input")))))


def document(record: Record, _: RowSettings) -> Draft:
    """A text that is no dialogue."""
    return Draft([Message("document", text(record, "text"))])


def preference(record: Record, settings: RowSettings) -> Draft:
    """A chosen and a rejected answer, each a transcript, a list of messages or, after a prompt, a text: the chosen."""
    chosen = take(record, "chosen")
    if isinstance(chosen, list) and chosen and isinstance(chosen[0], str):
        raise BadRow("wrong_type", "field 'chosen' is a list of texts; one record a dialogue is expected")
    if isinstance(chosen, list):
        return messages({"messages": chosen}, settings)
    said = text(record, "chosen")
    prompt = first_of(record, ("prompt", "question", "instruction"))
    return pair(text(record, prompt), said) if prompt in record else Draft(split_transcript(said))


def comparison(record: Record, _: RowSettings) -> Draft:
    """A question with two answers: the one with the higher score, or `response_j`, which is the better one."""
    asked = take(record, "question")
    question = text(asked, "full_text") if isinstance(asked, dict) else text(record, "question")
    if "response_j" in record:
        return pair(question, text(record, "response_j"))
    scores = [take(record, key) for key in ("score_0", "score_1")]
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise BadRow("wrong_type", f"a score is {type(score).__name__}, expected a number")
    if scores[0] == scores[1]:
        raise BadRow("no_preference", f"both answers are scored {scores[0]}")
    return pair(question, text(record, "answer_0" if scores[0] > scores[1] else "answer_1"))


def answer_lists(record: Record, _: RowSettings) -> Draft:
    """A question with lists of answers by ChatGPT and by people: ChatGPT's first, or where there is none a person's."""
    for key in ("chatgpt_answers", "human_answers"):
        if record.get(key) and (answers := [answer for answer in texts(record, key) if answer.strip()]):
            return pair(text(record, "question"), answers[0])
    raise BadRow("empty_output", "neither chatgpt_answers nor human_answers holds an answer")


def role_play(record: Record, _: RowSettings) -> Draft:
    """Two played roles in `message_1`, `message_2`, ...: the odd ones instruct. An unanswered last one is left out."""
    turns: list[Message] = []
    while (key := f"message_{len(turns) + 1}") in record:
        message = record[key]
        said = text(inner(record, key), "content") if isinstance(message, dict) else text(record, key)
        turns.append(Message(("user", "assistant")[len(turns) % 2], said))
    if len(turns) > 2 and len(turns) % 2:
        turns.pop()
    return Draft(turns)


def moss(record: Record, _: RowSettings) -> Draft:
    """Turns of MOSS with its plugins.

    Where a plugin was called, the assistant's thoughts and commands are a turn, the results come back as the user's,
    and the reply is the next turn. `chat` is an object of turns or, in the older files, one text with marks.
    """
    before = optional_text(record, "meta_instruction").strip()
    turns = [Message("system", before)] if before else []
    if "chat" not in record:
        return Draft([*turns, *split_transcript(text(record, "plain_text"))])
    chat = inner(record, "chat")
    for number in range(1, len(chat) + 1):
        turn = inner(chat, f"turn_{number}")
        thoughts, commands, results = (
            _moss_part(turn, key) for key in ("Inner Thoughts", "Commands", "Tool Responses")
        )
        turns.append(Message("user", _moss_text(turn, "Human")))
        if commands:
            called = "\n".join(part for part in (thoughts, commands) if part)
            turns += [Message("assistant", called), Message("user", results or "None")]
        turns.append(Message("assistant", _moss_text(turn, "MOSS")))
    return Draft(turns)


def _moss_text(turn: dict[str, Any], key: str) -> str:
    return clean(_MOSS_MARK.sub("", text(turn, key).strip()))


def _moss_part(turn: dict[str, Any], key: str) -> str:
    found = _moss_text(turn, key) if turn.get(key) is not None else ""
    return "" if _NONE.fullmatch(found) else found


def _pair_turns(record: Record, key: str) -> list[Message]:
    pairs = items(record, key)
    for both in pairs:
        if not isinstance(both, list) or len(both) != 2 or not all(isinstance(said, str) for said in both):
            raise BadRow("wrong_type", f"field {key!r} holds something else than pairs of question and answer")
    return _alternating(pairs)


def _alternating(pairs: Any) -> list[Message]:
    return [message for asked, reply in pairs for message in (Message("user", asked), Message("assistant", reply))]


def _turn(turn: Any, role_key: str, text_key: str, allowed: tuple[str, ...]) -> Message:
    if not isinstance(turn, dict):
        raise BadRow("wrong_type", f"a turn is {type(turn).__name__}, expected an object")
    role = text(turn, role_key)
    if (with_tool := tool_message(turn, role, turn.get(text_key))) is not None:
        return with_tool
    if role not in allowed:
        raise BadRow("unknown_role", f"{role_key} {role!r} is not one of {', '.join(allowed)}")
    return Message(_ROLES[role], text(turn, text_key))
