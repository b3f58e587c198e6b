"""Belle-eval (Ji et al., 2023): Chinese instructions in 10 classes, scored 0 to 1 by a judge."""

from collections import Counter

from didact.datasets.conversation import Message
from didact.datasets.rows.fields import optional_text, text
from didact.datasets.rows.raw_row import BadRow
from didact.evaluation.asks import Answer, Ask, Generation
from didact.evaluation.judge import Exhibit, Judge, Judged
from didact.evaluation.judge.verdict import FROM_0_TO_1
from didact.evaluation.judge.wording import group_of, plain_class
from didact.evaluation.questions import Question
from didact.evaluation.tasks.question_files import QuestionRow, read_questions
from didact.evaluation.tasks.text_task import choose
from didact.spec import BelleEvalTask


def build_belle_eval(spec: BelleEvalTask) -> Judged:
    """Belle-eval from its file.

    Raises:
        DataError: the file or the criteria cannot be read, or too many rows cannot be used; names file and line.
    """
    judge = Judge.build(spec.judging, FROM_0_TO_1)
    labels: Counter[str] = Counter()

    def question(row: QuestionRow) -> Question:
        asked, label = text(row.record, "question"), text(row.record, "class")
        if not asked.strip():
            raise BadRow("empty_prompt", "question is empty")
        labels[label] += 1
        expected = optional_text(row.record, "std_answer")
        return Question(str(row.number), (Message("user", asked),), expected, group=group_of(label))

    read = read_questions("belle_eval", spec.path, question, max_bad_rows_share=spec.max_bad_rows_share)
    corrections = [f"left out: {line}" for line in read.left_out]
    for label, count in sorted(labels.items()):
        plain = plain_class(label)
        if label != plain:
            corrections.append(f"class {label!r} read as {plain!r}: {count} questions")
        if not judge.criteria.known(label):
            corrections.append(f"class {label!r} has no criteria and is judged by general ones: {count} questions")

    def rounds(question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        ask = Generation(question.messages, spec.max_new_tokens, temperature=spec.temperature or 0)
        return () if answers else (ask,)

    def exhibits(question: Question, answers: tuple[Answer, ...]) -> tuple[Exhibit, ...]:
        reference = (question.expected,) if question.expected else ()
        return (Exhibit(question.messages, (answers[0].text,), reference=reference, group=question.group),)

    told = spec.model_dump(mode="json", include={"max_new_tokens", "temperature"})
    questions = tuple(choose("belle_eval", read.found, spec.num_items))
    return Judged("belle_eval", questions, rounds, exhibits, judge, told, tuple(corrections))
