"""Records of talk -> turns: instructions, pairs, chats, transcripts, preferences."""

import re
from typing import Any

from didact.datasets.conversation import Message
from didact.datasets.forms.drafts import Draft, RowSettings, pair
from didact.datasets.forms.turns.reading import CHAT_FIELDS, CHATS, about, chat_turns, said
from didact.datasets.forms.turns.tools import tool_message
from didact.datasets.forms.turns.transcripts import clean, is_history, split_transcript
from didact.datasets.rows.fields import Record, first_of, inner, items, joined, optional_text, take, text, texts
from didact.datasets.rows.raw_row import BadRow

ANSWERS = ("output", "response")
CONTEXTS = ("input", "context")
ASKED = ("prompt", "question", "instruction")
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("inputs", "targets"),
    ("input", "target"),
    ("instruction", "completion"),
    ("question", "response"),
    ("query", "response"),
)
PLAIN_PAIRS = (("input", "output"), ("user", "assistant"))
"""Names that records of other forms have as well, so these are taken where no other form fits."""
_NONE = re.compile(r"none\.?", re.IGNORECASE)
_MOSS_MARK = re.compile(r"\A<\|[^|<>]+\|>:?")


def alpaca(record: Record, _: RowSettings) -> Draft:
    """Instruction, optional input or context, output or response, and optional history of (question, answer) pairs."""
    instruction, output = text(record, "instruction"), text(record, first_of(record, ANSWERS))
    given, earlier = _given(record), _history(record)
    if is_history(instruction) and not given.strip():
        return Draft([*earlier, *split_transcript(instruction)[:-1], Message("assistant", output)])
    return Draft([*earlier, Message("user", joined(instruction, given)), Message("assistant", output)])


def seed_task(record: Record, _: RowSettings) -> Draft:
    """A task with instances, each an input and an output: the first instance."""
    instances = items(record, "instances")
    if not instances or not isinstance(instances[0], dict):
        raise BadRow("wrong_type", "field 'instances' holds no object with input and output")
    asked = joined(text(record, "instruction"), optional_text(instances[0], "input"))
    return pair(asked, text(instances[0], "output"))


def prompt_completion(record: Record, _: RowSettings) -> Draft:
    """A prompt and what follows it, under any names of `PAIRS` and `PLAIN_PAIRS`: texts, turns, or lists of turns.

    What the prompt is about may stand in `input` or `context`, and what was said before in `history`.
    """
    filled = {key for key, value in record.items() if value is not None}
    pairs = (names for keys in (filled, record.keys()) for names in (*PAIRS, *PLAIN_PAIRS) if set(names) <= keys)
    prompt, completion = next(pairs, PAIRS[0])
    given = "" if prompt in CONTEXTS else _given(record)
    asked = about(said(record, prompt, "user"), given)
    return Draft([*_history(record), *asked, *said(record, completion, "assistant")])


def tool_query(record: Record, _: RowSettings) -> Draft:
    """A question, the calls that answer it and the tools on offer, each a list or its JSON text."""
    calling = tool_message({"tool_calls": take(record, "answers")}, "assistant", None)
    if calling is None:
        raise BadRow("empty_output", "field 'answers' holds no call")
    return Draft([Message("user", text(record, "query")), calling])


def messages(record: Record, _: RowSettings) -> Draft:
    """Turns with role and content, as a list or as the JSON text of one."""
    return Draft(chat_turns(record, "messages"))


def sharegpt(record: Record, _: RowSettings) -> Draft:
    """Turns with from and value, with role and content, or with a question and its answer in each."""
    turns = chat_turns(record, first_of(record, CHATS))
    before = optional_text(record, "instruction")
    if before.strip() and turns and turns[0].role != "system":
        turns.insert(0, Message("system", before))
    return Draft(turns)


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


def preference(record: Record, _: RowSettings) -> Draft:
    """A chosen and a rejected answer: the chosen.

    It is a transcript, all turns of a chat, or what follows a prompt: a text, a turn or a list of turns. The prompt is
    turns, or a text with what it is about in `input` or `context`.
    """
    reply = said(record, "chosen", "assistant")
    asked = _asked(record)
    if isinstance(record["chosen"], str):
        return Draft([*asked, *reply] if asked else split_transcript(record["chosen"]))
    if any(message.role == "user" for message in reply):
        system = asked[:1] if asked and asked[0].role == "system" != reply[0].role else []
        return Draft([*system, *reply])
    return Draft([*asked, *reply])


def _asked(record: Record) -> list[Message]:
    """What comes before a chosen answer; nothing where it tells the whole chat itself."""
    for key in CHAT_FIELDS:
        if record.get(key) is not None:
            return chat_turns(record, key)
    key = first_of(record, ASKED)
    if key not in record:
        return []
    return [*_history(record), *about(said(record, key, "user"), _given(record))]


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


def moss(record: Record, settings: RowSettings) -> Draft:
    """Turns of MOSS with its plugins.

    Where a plugin was called, the assistant's thoughts and commands are a turn, the results come back as the user's,
    and the reply is the next turn. Thought, command and result each stand on lines of their own behind their name, and
    the thought of a turn without command stands before its reply; with `options.reasoning: only` no thought is kept.
    `chat` is an object of turns or, in the older files, one text with marks.
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
        asked, reply = _moss_text(turn, "Human"), _moss_text(turn, "MOSS")
        thought = [f"Thought: {thoughts}"] if thoughts and settings.options.reasoning != "only" else []
        turns.append(Message("user", asked))
        if commands:
            turns.append(Message("assistant", "\n\n".join([*thought, f"Command: {commands}"])))
            turns += [Message("user", f"Result: {results or 'None'}"), Message("assistant", reply)]
        else:
            turns.append(Message("assistant", "\n\n".join([*thought, reply]) if reply else reply))
    return Draft(turns)


def _moss_text(turn: dict[str, Any], key: str) -> str:
    return clean(_MOSS_MARK.sub("", text(turn, key).strip()))


def _moss_part(turn: dict[str, Any], key: str) -> str:
    found = _moss_text(turn, key) if turn.get(key) is not None else ""
    return "" if _NONE.fullmatch(found) else found


def _given(record: Record) -> str:
    return joined(*(optional_text(record, key) for key in CONTEXTS))


def _history(record: Record) -> list[Message]:
    return _pair_turns(record, "history") if record.get("history") else []


def _pair_turns(record: Record, key: str) -> list[Message]:
    pairs = items(record, key)
    for both in pairs:
        if not isinstance(both, list) or len(both) != 2 or not all(isinstance(said, str) for said in both):
            raise BadRow("wrong_type", f"field {key!r} holds something else than pairs of question and answer")
    return _alternating(pairs)


def _alternating(pairs: Any) -> list[Message]:
    return [message for asked, reply in pairs for message in (Message("user", asked), Message("assistant", reply))]
