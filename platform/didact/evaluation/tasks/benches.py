"""MT-bench and Vicuna-bench (Zheng et al., 2023): conversations of one or two turns, scored 1 to 10 or compared."""

from collections.abc import Mapping

from didact.datasets.conversation import Message
from didact.datasets.rows.fields import items, optional_text, take, texts
from didact.datasets.rows.raw_row import BadRow
from didact.evaluation.asks import Answer, Ask, Generation
from didact.evaluation.judge import Exhibit, Judge, Judged, Scale
from didact.evaluation.judge.judged_task import said_aloud
from didact.evaluation.judge.wording import group_of
from didact.evaluation.questions import Question
from didact.evaluation.tasks.question_files import QuestionRow, read_questions
from didact.evaluation.tasks.text_task import choose
from didact.spec import MtBenchTask, VicunaBenchTask

_FROM_1_TO_10 = Scale(1, 10)


def build_bench(spec: MtBenchTask | VicunaBenchTask) -> Judged:
    """A bench from its questions and, where they are given, its reference answers.

    Raises:
        DataError: a file cannot be read, too many rows cannot be used, or no reference belongs to a question.
    """
    name, share = spec.task, spec.max_bad_rows_share
    pairwise = spec.by == "pairwise"
    judge = Judge.build(spec.judging, None if pairwise else _FROM_1_TO_10)
    read = read_questions(name, spec.path, _question, max_bad_rows_share=share)
    corrections = [f"left out: {line}" for line in read.left_out]
    questions = list(read.found)
    if spec.references is not None:
        answers = read_questions(name, spec.references, _reference, max_bad_rows_share=share)
        corrections += [f"left out: {line}" for line in answers.left_out]
        references = dict(answers.found)
        if lonely := sorted(set(references) - {question.id for question in questions}):
            corrections.append(f"references of questions that are not asked: {len(lonely)}, the first {lonely[0]!r}")
        questions = [_with_reference(question, references) for question in questions]
    roles = ("model", "rival") if pairwise else ("model",)

    def rounds(question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        turns, turn = question.data["turns"], len(answers) // len(roles)
        if turn > len(turns):
            return ()
        return tuple(
            Generation(
                _conversation(question, _said(answers, place, len(roles))),
                spec.max_new_tokens,
                temperature=spec.temperature or 0,
                to="rival" if role == "rival" else "model",
            )
            for place, role in enumerate(roles)
        )

    def exhibits(question: Question, answers: tuple[Answer, ...]) -> tuple[Exhibit, ...]:
        mine = _said(answers, 0, len(roles))
        theirs = _said(answers, 1, len(roles)) if pairwise else None
        return tuple(
            Exhibit(
                question.messages,
                mine[: turn + 1],
                tuple(question.data["turns"][:turn]),
                theirs[: turn + 1] if theirs is not None else None,
                tuple(question.data["reference"][: turn + 1]),
                question.group,
            )
            for turn in range(len(question.data["turns"]) + 1)
        )

    told = spec.model_dump(mode="json", include={"max_new_tokens", "temperature", "by"})
    chosen = tuple(choose(name, questions, spec.num_items))
    return Judged(name, chosen, rounds, exhibits, judge, told, tuple(corrections))


def _said(answers: tuple[Answer, ...], place: int, of: int) -> tuple[str, ...]:
    """One model's answers, turn by turn."""
    return tuple(said_aloud(answer).text for answer in answers[place::of])


def _conversation(question: Question, said: tuple[str, ...]) -> tuple[Message, ...]:
    messages = question.messages
    for text, turn in zip(said, question.data["turns"], strict=False):
        messages = (*messages, Message("assistant", text), Message("user", turn))
    return messages


def _question(row: QuestionRow) -> Question:
    turns = texts(row.record, "turns")
    if not turns or not all(turn.strip() for turn in turns):
        raise BadRow("empty_prompt", "turns: a turn is empty, or there is none")
    group = group_of(optional_text(row.record, "category"))
    data = {"turns": turns[1:], "reference": []}
    return Question(str(take(row.record, "question_id")), (Message("user", turns[0]),), group=group, data=data)


def _reference(row: QuestionRow) -> tuple[str, list[str]]:
    choices = items(row.record, "choices")
    turns = choices[0].get("turns") if choices and isinstance(choices[0], dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise BadRow("wrong_type", "choices: expected a list with an object that holds turns, a list of texts")
    return str(take(row.record, "question_id")), turns


def _with_reference(question: Question, references: Mapping[str, list[str]]) -> Question:
    reference = references.get(question.id, [])
    data = {**question.data, "reference": reference}
    return Question(question.id, question.messages, "\n\n".join(reference), group=question.group, data=data)
