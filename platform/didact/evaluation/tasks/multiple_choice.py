"""Multiple choice by likelihood or by written answers: one task class, and a reader of rows for each benchmark.

ChoiceTask -> question files -> MultipleChoice (what is asked, scores, calibration, figures of parts)
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.evaluation import statistics  # its parts are loaded when figures are made
from didact.evaluation.asks import Answer, Ask, Generation, Likelihood
from didact.evaluation.questions import Question, Score
from didact.evaluation.reasoning import of_samples, read_answer
from didact.evaluation.scorers.choice import CHOICE_VERSION, score_choice, score_likelihoods
from didact.evaluation.scorers.options import Options, candidates
from didact.evaluation.tasks.bigbench import read_bbh, read_reasoning_prompts, read_strategyqa, score_words
from didact.evaluation.tasks.choice_prompts import CHINESE, ENGLISH, MMCU_DIRECT, ChoicePrompts, Wording
from didact.evaluation.tasks.exams import EXAM_COLUMNS, read_exam, read_mmcu
from didact.evaluation.tasks.question_files import QuestionRow, questions_in, read_questions
from didact.evaluation.tasks.text_task import choose
from didact.files import fingerprint
from didact.logs import get_logger
from didact.spec import ChoiceTask

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Benchmark:
    read: Callable[[QuestionRow, list[str]], Question]
    wording: Wording
    columns: tuple[str, ...] = ()
    each: str | None = None
    lists_options: bool = True


_BENCHMARKS = {
    "mmlu": _Benchmark(read_exam, ENGLISH, columns=EXAM_COLUMNS),
    "cmmlu": _Benchmark(read_exam, CHINESE),
    "ceval": _Benchmark(read_exam, CHINESE),
    "aqua": _Benchmark(read_exam, ENGLISH),
    "mmcu": _Benchmark(read_mmcu, CHINESE),
    "strategyqa": _Benchmark(read_strategyqa, ENGLISH, each="examples", lists_options=False),
    "bbh": _Benchmark(read_bbh, ENGLISH, each="examples", lists_options=False),
}


@dataclass(frozen=True)
class MultipleChoice:
    """A `Task` of questions whose `data` are `Options`, or None where the answer is in words of its own."""

    name: str
    settings: ChoiceTask
    prompts: ChoicePrompts
    questions: tuple[Question, ...]
    examples: Mapping[str, tuple[Question, ...]]
    """Group -> worked examples."""
    corrections: tuple[str, ...] = ()
    metric: str = "accuracy"

    @property
    def version(self) -> str:
        """Digest over all that is asked and how it is scored."""
        asked = [
            [each.id, [turn.content for turn in self._prompt(each)], each.expected, list(each.options), each.group]
            for each in self.questions
        ]
        ways = {"by", "options_as", "max_new_tokens", "samples", "temperature"}
        settings = self.settings.model_dump(mode="json", include=ways)
        return fingerprint({"questions": asked, "settings": settings, "scorer": CHOICE_VERSION})

    def asks(self, question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        """One written answer, or the likelihood of every answer there can be."""
        if answers:
            return ()
        prompt = self._prompt(question)
        if self.settings.by == "generation":
            samples, temperature = self.settings.samples, self.settings.drawn_at
            return (Generation(prompt, self.settings.max_new_tokens, num_samples=samples, temperature=temperature),)
        return (Likelihood(prompt, tuple(self.prompts.said(question, each) for each in candidates(question.data))),)

    def score(self, question: Question, answers: tuple[Answer, ...]) -> Score:
        """What the text says, or which answer is the likeliest."""
        if self.settings.by == "generation":
            if not answers[0].texts:
                return Score(problem="the model gave no text")
            scorer = score_words if question.data is None else score_choice
            said = [read_answer(each.text, stepwise=False, reads="whole") or "" for each in answers[0].texts]
            return of_samples([scorer(question, text) for text in said], self.metric, str)
        texts = question.options if self.prompts.compares_texts(question) else ()
        sizes = [len(text.encode("utf-8")) for text in texts] or None
        return score_likelihoods(question, answers[0].likelihoods, sizes)

    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        """The calibration error where likelihoods are there, and the accuracy of each part of a group."""
        found: dict[str, float] = {}
        sure = [score.values for _, score in scores if "confidence" in score.values]
        if sure:
            confidences, correct = ([each[name] for each in sure] for name in ("confidence", self.metric))
            found["ece"] = statistics.calibration(confidences, correct).error
        parts: dict[tuple[str, str], list[float]] = {}
        for question, score in scores:
            if self.metric in score.values:
                parts.setdefault((question.group, _part(question)), []).append(score.values[self.metric])
        several = {group for group, count in Counter(group for group, _ in parts if group).items() if count > 1}
        means = {part: sum(values) / len(values) for part, values in parts.items() if part[0] in several}
        return found | {f"{group}/{part}/{self.metric}": mean for (group, part), mean in means.items()}

    def _prompt(self, question: Question) -> tuple[Message, ...]:
        return self.prompts.prompt(question, self.examples.get(question.group, ()))


def build_choices(spec: ChoiceTask) -> MultipleChoice:
    """A benchmark from its files or from the hub.

    Raises:
        DataError: a file that is missing, damaged or empty, too many rows that cannot be used, or no worked examples
            where some are asked for; names file and line.
    """
    benchmark = _BENCHMARKS[spec.task]
    corrections: list[str] = []
    questions, left_out = _read(spec, benchmark, spec.path, spec.split, corrections)
    corrections += [f"left out: {each}" for each in left_out]
    if spec.by == "likelihood" and (open_ended := [each for each in questions if each.data is None]):
        questions = [each for each in questions if each.data is not None]
        corrections.append(f"left out: {len(open_ended):,} questions without options, which have no likelihoods")
    if spec.without is not None:
        known = questions_in(spec.title, spec.without, (each.text for each in questions))
        corrections.append(f"left out: {len(known):,} of {len(questions):,} questions that stand in {spec.without}")
        questions = [each for each in questions if each.text not in known]
    if not questions:
        said = f"; {corrections[-1]}" if corrections else ""
        raise DataError(f"evaluation task {spec.title}: {spec.path} leaves no questions{said}")
    examples = _examples(spec, benchmark, {each.group for each in questions}) if spec.few_shot else {}
    wording = MMCU_DIRECT if spec.task == "mmcu" and spec.prompt == "direct" else benchmark.wording
    return MultipleChoice(
        name=spec.title,
        settings=spec,
        prompts=ChoicePrompts(spec, wording, benchmark.lists_options),
        questions=tuple(choose(spec.title, _numbered(_with_sets(questions)), spec.num_items)),
        examples=examples,
        corrections=tuple(corrections),
    )


def _read(
    spec: ChoiceTask, benchmark: _Benchmark, path: str, split: str, corrections: list[str]
) -> tuple[list[Question], tuple[str, ...]]:
    seen: set[str] = set()

    def make(row: QuestionRow) -> Question | None:
        question = benchmark.read(row, corrections)
        names = {question.group, _part(question)}
        seen.update(names)
        return question if not spec.subjects or names & set(spec.subjects) else None

    read = read_questions(
        spec.title,
        path,
        make,
        split=split,
        each=benchmark.each,
        columns=benchmark.columns,
        max_bad_rows_share=spec.max_bad_rows_share,
    )
    if missing := sorted(set(spec.subjects) - seen):
        known = ", ".join(sorted(seen - {""})[:20]) or "none"
        raise DataError(f"evaluation task {spec.title}: {path} has no subject {missing[0]!r}; it has: {known}")
    return list(read.found), read.left_out


def _examples(spec: ChoiceTask, benchmark: _Benchmark, groups: set[str]) -> dict[str, tuple[Question, ...]]:
    """Worked examples of each group; of a file without groups, the same for all."""
    place, split = (spec.path, "dev") if spec.examples is None else (spec.examples, spec.split)
    folder = Path(place).expanduser()
    if spec.examples is None and not place.startswith("hf:") and not (folder / split).is_dir():
        raise DataError(
            f"evaluation task {spec.title}: few_shot needs worked examples, and {place} holds no folder {split!r}; "
            "set examples to the file or folder that has some"
        )
    found: dict[str, tuple[Question, ...]] = {}
    if any(folder.glob("*.txt")):
        found = read_reasoning_prompts(folder)
    else:
        for each in _read(spec, benchmark, place, split, [])[0]:
            found[each.group] = (*found.get(each.group, ()), each)
    if missing := sorted(group for group in groups if not found.get(group)):
        raise DataError(
            f"evaluation task {spec.title}: {place} has no worked examples of {missing[0]!r}; it has some of: "
            + (", ".join(sorted(found)[:20]) or "none")
        )
    fewest = min(len(found[group]) for group in groups)
    if fewest < spec.few_shot:
        _log.warning(f"{spec.title}: some subject has {fewest} worked examples; few_shot={spec.few_shot} uses them all")
    return {group: found[group] for group in groups}


def _part(question: Question) -> str:
    return question.id.partition(":")[0]


def _numbered(questions: Sequence[Question]) -> list[Question]:
    """Each named by its part and its number there."""
    counts: Counter[str] = Counter()
    numbered = []
    for each in questions:
        counts[each.id] += 1
        numbered.append(replace(each, id=f"{each.id}:{counts[each.id]}"))
    return numbered


def _with_sets(questions: Sequence[Question]) -> list[Question]:
    """Where one question of a part has several right options, any of them may have."""
    options: list[Options | None] = [each.data for each in questions]
    parts = {_part(each) for each, own in zip(questions, options, strict=True) if own is not None and own.several}
    return [
        each if own is None or each.id not in parts else replace(each, data=replace(own, several=True))
        for each, own in zip(questions, options, strict=True)
    ]
