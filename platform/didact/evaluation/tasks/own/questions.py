"""Questions out of a file of one's own, scored by a scorer's name."""

from collections import Counter
from pathlib import Path

from didact.datasets.rows.options import row_options
from didact.evaluation.questions import Question, Score, Task
from didact.evaluation.scorers import NamedScorer, build_scorer
from didact.evaluation.tasks.own.rows import RowReader
from didact.evaluation.tasks.own.template import template_of
from didact.evaluation.tasks.question_files import Questions, read_questions
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import JudgeScorer, QuestionsTask, SourceSpec, full_scorer

_DEV = "dev"


def build_questions(spec: QuestionsTask) -> Task:
    """The questions of a file, with what scores them.

    Raises:
        DataError: the file is missing or empty, or more rows than allowed cannot be used; names file and line.
        SpecError: the scorer is not there, or cannot be used so.
        TemplateError: the template cannot be read.
    """
    scorer = full_scorer(spec.scorer)
    by_judge = isinstance(scorer, JudgeScorer)
    named = _LEFT_TO_THE_JUDGE if by_judge else build_scorer(scorer)
    questions = _read(spec, spec.path)
    examples = _examples(spec) if spec.few_shot else ()
    task = TextTask.of(
        spec.name,
        spec,
        questions.found,
        named,
        examples=examples,
        corrections=[*(f"left out: {line}" for line in questions.left_out), *_asked_twice(spec.path, questions.found)],
    )
    if not by_judge:
        return task
    from didact.evaluation.judge import judged  # brings statistics, which take a second to load

    return judged(task, scorer)


def _examples(spec: QuestionsTask) -> list[Question]:
    """Those of the file that is named, else of the folder `dev` beside the questions' own; those with an answer."""
    if spec.examples:
        read = _read(spec, spec.examples)
    elif (Path(spec.path).expanduser() / _DEV).is_dir():
        read = _read(spec, spec.path, split=_DEV)
    else:
        return []
    return [each for each in read.found if each.expected]


def _read(spec: QuestionsTask, path: str, split: str | None = None) -> Questions[Question]:
    template = template_of(spec.template, f"evaluation task {spec.name}, template")
    reader = RowReader(full_scorer(spec.scorer), spec.fields, template, spec.system)
    source = SourceSpec(name=spec.name, path=path, options=spec.options)
    return read_questions(
        spec.name,
        path,
        reader.question,
        split=split or spec.split,
        options=row_options(source),
        max_bad_rows_share=spec.max_bad_rows_share,
    )


def _asked_twice(path: str, questions: tuple[Question, ...]) -> list[str]:
    counts = Counter(each.messages for each in questions)
    twice = sum(count - 1 for count in counts.values())
    return [f"{path}: {twice:,} of {len(questions):,} questions repeat another one"] if twice else []


def _not_scored(question: Question, text: str) -> Score:
    return Score(problem="the judge was not asked")


_LEFT_TO_THE_JUDGE = NamedScorer(_not_scored, "judge, 1", metric="score", reads="whole")
