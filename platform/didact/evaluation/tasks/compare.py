"""Any questions, answered by two: the judge says which answer is better."""

from didact.datasets.rows.fields import first_of, optional_text
from didact.datasets.rows.raw_row import BadRow
from didact.evaluation.asks import Answer, Ask, Generation
from didact.evaluation.judge import Exhibit, Judge, Judged
from didact.evaluation.judge.wording import group_of
from didact.evaluation.questions import Question
from didact.evaluation.tasks.question_files import QuestionRow, read_questions, turns_of
from didact.evaluation.tasks.text_task import choose
from didact.spec import CompareTask

_ASKED = ("question", "instruction", "prompt")
_ANSWERED = ("answer", "output", "reference")
_CLASSES = ("class", "category", "subject")


def build_compare(spec: CompareTask) -> Judged:
    """Questions from a file, with the answers to compare with where the file has them.

    Raises:
        DataError: the file or the criteria cannot be read, or too many rows cannot be used; names file and line.
    """
    against_reference = spec.against == "reference"

    def question(row: QuestionRow) -> Question:
        expected = _first(row, _ANSWERED)
        if against_reference and not expected.strip():
            raise BadRow("missing_field", f"there is no answer to compare with; expected one of {', '.join(_ANSWERED)}")
        group = group_of(_first(row, _CLASSES))
        turns = turns_of(row.record, _ASKED)
        if not turns[-1].content.strip():
            raise BadRow("empty_prompt", "the question is empty")
        return Question(str(row.number), tuple(turns), expected, group=group)

    read = read_questions(spec.name, spec.path, question, split=spec.split, max_bad_rows_share=spec.max_bad_rows_share)

    def rounds(question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        if answers:
            return ()
        mine = Generation(question.messages, spec.max_new_tokens, temperature=spec.temperature or 0)
        theirs = Generation(question.messages, spec.max_new_tokens, temperature=spec.temperature or 0, to="rival")
        return (mine,) if against_reference else (mine, theirs)

    def exhibits(question: Question, answers: tuple[Answer, ...]) -> tuple[Exhibit, ...]:
        rival = question.expected if against_reference else answers[1].text
        reference = (question.expected,) if question.expected and not against_reference else ()
        return (Exhibit(question.messages, (answers[0].text,), (), (rival,), reference, question.group),)

    judge = Judge.build(spec.judging, None)
    told = spec.model_dump(mode="json", include={"max_new_tokens", "temperature", "against"})
    left_out = tuple(f"left out: {line}" for line in read.left_out)
    return Judged(
        spec.name, tuple(choose(spec.name, read.found, spec.num_items)), rounds, exhibits, judge, told, left_out
    )


def _first(row: QuestionRow, names: tuple[str, ...]) -> str:
    return optional_text(row.record, first_of(row.record, names))
