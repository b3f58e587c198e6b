"""IFEval (Zhou et al., 2023): instructions such as "use no comma" that a program can check.

The checks are lm-eval's. Strict reads the answer as it is, loose also without its first or last line or its asterisks.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from didact.datasets import open_hub
from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.evaluation.harness import missing_extra, require_lm_eval
from didact.evaluation.questions import Question, Score
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import IfEvalTask

_HUB = "hf:"
_FIELDS = {"prompt": str, "instruction_id_list": list, "kwargs": list}
_BY_SENTENCES = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
"""Checks that cut text into sentences, for which NLTK needs data that comes with no package."""
_STRICT, _LOOSE = "instruction_accuracy", "loose_instruction_accuracy"


def build_ifeval(spec: IfEvalTask) -> "IfEval":
    """IFEval from its JSON lines or from the hub.

    Raises:
        DataError: the extra or NLTK's sentences are missing, or a row that is not IFEval's; names file and line.
    """
    require_lm_eval("ifeval")
    for package in ("langdetect", "nltk", "immutabledict"):
        if missing := missing_extra(package):
            raise DataError(f"task ifeval: {missing}")
    questions = [_question(number, row, place) for number, (row, place) in enumerate(_rows(spec.path))]
    if not questions:
        raise DataError(f"{spec.path} holds no rows; expected JSON lines with {', '.join(_FIELDS)}")
    _check_sentences(questions)
    _check_names(questions)
    return IfEval.of("ifeval", spec, questions, _score, "lm-eval's ifeval 4.0, 1")


@dataclass(frozen=True)
class IfEval(TextTask):
    """A `TextTask` with figures over instructions, of which a prompt has one to three."""

    @override
    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        """Share of instructions that were followed, of all and of each family."""
        followed: dict[str, list[bool]] = {}
        for question, score in scores:
            if score.problem is not None:
                continue
            for metric, verdicts in score.data.items():
                for name, verdict in zip(question.data["instruction_id_list"], verdicts, strict=True):
                    followed.setdefault(metric, []).append(verdict)
                    followed.setdefault(f"{name.partition(':')[0]}/{metric}", []).append(verdict)
        return {metric: sum(each) / len(each) for metric, each in followed.items()}


def _score(question: Question, text: str) -> Score:
    import langdetect
    from lm_eval.tasks.ifeval import utils as checks

    langdetect.DetectorFactory.seed = 0  # it draws at random, and a text must have the same language each time
    strict, loose = (
        check(_input(question, checks), text).follow_instruction_list
        for check in (checks.test_instruction_following_strict, checks.test_instruction_following_loose)
    )
    broken = [name for name, done in zip(question.data["instruction_id_list"], strict, strict=True) if not done]
    return Score(
        {"accuracy": float(all(strict)), "loose_accuracy": float(all(loose))},
        extracted=text,
        note=f"not followed: {', '.join(broken)}" if broken else "",
        data={_STRICT: strict, _LOOSE: loose},
    )


def _input(question: Question, checks: Any) -> Any:
    row = question.data
    return checks.InputExample(0, row["instruction_id_list"], row["prompt"], row["kwargs"])


def _question(number: int, row: Any, place: str) -> Question:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), kind) for key, kind in _FIELDS.items()):
        raise DataError(f"{place}: found {str(row)[:80]!r}; expected an object with {', '.join(_FIELDS)}")
    names, settings = row["instruction_id_list"], row["kwargs"]
    if not names or len(names) != len(settings):
        raise DataError(f"{place}: {len(names)} instructions and {len(settings)} kwargs; expected one each")
    data = {"prompt": row["prompt"], "instruction_id_list": names, "kwargs": [each or {} for each in settings]}
    families = sorted({str(name).partition(":")[0] for name in names})
    expected = "; ".join(map(str, names))
    group = families[0] if len(families) == 1 else "several"
    return Question(str(row.get("key", number)), (Message("user", row["prompt"]),), expected, group=group, data=data)


def _check_names(questions: Sequence[Question]) -> None:
    # Its import fetches NLTK's sentences where they are missing, and tells of it whatever came of that.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from lm_eval.tasks.ifeval import instructions_registry

    known = instructions_registry.INSTRUCTION_DICT
    unknown = sorted({name for each in questions for name in each.data["instruction_id_list"]} - known.keys())
    if unknown:
        raise DataError(f"IFEval has no instruction {unknown[0]!r}; expected one of {', '.join(sorted(known))}")


def _check_sentences(questions: Sequence[Question]) -> None:
    needed = any(_BY_SENTENCES & set(each.data["instruction_id_list"]) for each in questions)
    if not needed:
        return
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        if not nltk.download("punkt_tab", quiet=True):
            raise DataError(
                "IFEval counts sentences with NLTK's punkt_tab, which is not here and could not be fetched; "
                "run `python -m nltk.downloader punkt_tab`, or put it into a folder that NLTK_DATA names"
            ) from None


def _rows(path: str) -> Iterator[tuple[Any, str]]:
    """Rows, each with the place to name in errors."""
    if path.startswith(_HUB):
        for index, row in enumerate(open_hub(path, split="train", revision=None)):
            yield row, f"{path}, row {index}"
        return
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{path} is not a file; expected IFEval's JSON lines, or hf:google/IFEval")
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                yield json.loads(line.decode("utf-8")), place
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise DataError(f"{place}: {error}; expected a JSON object with {', '.join(_FIELDS)}") from error
