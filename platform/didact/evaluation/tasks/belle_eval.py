"""Belle-eval (Ji et al., 2023): Chinese instructions in 10 classes, scored by a judge, or by their right answers."""

from collections import Counter
from collections.abc import Sequence

from didact.datasets.conversation import Message
from didact.datasets.rows.fields import optional_text, text
from didact.datasets.rows.raw_row import BadRow
from didact.errors import DataError
from didact.evaluation.asks import Answer, Ask, Generation
from didact.evaluation.judge import Exhibit, Judge, Judged
from didact.evaluation.judge.verdict import FROM_0_TO_1
from didact.evaluation.judge.wording import group_of, plain_class
from didact.evaluation.questions import Question, Task
from didact.evaluation.scorers.overlap import rouge_scorer
from didact.evaluation.tasks.question_files import QuestionRow, read_questions
from didact.evaluation.tasks.text_task import TextTask, choose
from didact.spec import BelleEvalTask, RougeScorer


def build_belle_eval(spec: BelleEvalTask) -> Task:
    """Belle-eval from its file.

    Raises:
        DataError: the file or the criteria cannot be read, too many rows cannot be used, or no question has what its
            answers are compared with; names file and line.
    """
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
    if spec.by == "reference":
        return _by_reference(spec, read.found, corrections)
    return _by_judge(spec, read.found, labels, corrections)


def _by_judge(
    spec: BelleEvalTask, questions: Sequence[Question], labels: Counter[str], corrections: list[str]
) -> Judged:
    judge = Judge.build(spec.judging, FROM_0_TO_1)
    for label, count in sorted(labels.items()):
        if not judge.criteria.known(label):
            corrections.append(f"class {label!r} has no criteria and is judged by general ones: {count} questions")

    def rounds(question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        ask = Generation(question.messages, spec.max_new_tokens, temperature=spec.temperature or 0)
        return () if answers else (ask,)

    def exhibits(question: Question, answers: tuple[Answer, ...]) -> tuple[Exhibit, ...]:
        reference = (question.expected,) if question.expected else ()
        return (Exhibit(question.messages, (answers[0].text,), reference=reference, group=question.group),)

    told = spec.model_dump(mode="json", include={"max_new_tokens", "temperature"})
    chosen = tuple(choose("belle_eval", questions, spec.num_items))
    return Judged("belle_eval", chosen, rounds, exhibits, judge, told, tuple(corrections))


def _by_reference(spec: BelleEvalTask, questions: Sequence[Question], corrections: list[str]) -> TextTask:
    known = [each for each in questions if each.expected and each.expected.strip()]
    if not known:
        raise DataError(f"{spec.path}: no question has a std_answer, which by: reference compares answers with")
    if missing := len(questions) - len(known):
        corrections.append(f"without std_answer, left out: {missing} of {len(questions)} questions")
    scorer = rouge_scorer(RougeScorer(name="rouge"))
    return TextTask.of("belle_eval", spec, known, scorer, corrections=corrections)
