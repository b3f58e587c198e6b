"""Ask a model all questions of a task, as many at a time as it takes, and score what it answers.

task.asks -> kept answer, or Model.answer -> task.asks again, until nothing is asked -> task.score
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from didact.errors import DidactError
from didact.evaluation.answer_store import KeptAnswers, kept_answers
from didact.evaluation.asks import Answer, Ask, Model, Role
from didact.evaluation.questions import Question, Score, Task
from didact.evaluation.results import Scored, TaskResult, task_metrics
from didact.logs import get_logger

_log = get_logger(__name__)
_DAY = 24 * 3600.0
_EVERY_SECONDS = 60.0
"""How often a task that takes longer says how far it is."""
_UNREAD_IN_A_ROW = 8
"""Questions of which a judge must have said nothing that can be read, until it is taken for one that cannot judge."""

Watch = Callable[[Task, Model, Scored], None]
"""Told of each question when it is scored."""


@dataclass
class Kept:
    """Answers of a model that a task found instead of asking."""

    count: int = 0
    oldest: float = math.inf
    """When it was given, in seconds since 1970."""

    def add(self, given_at: float | None) -> None:
        """Count one."""
        self.count += 1
        self.oldest = min(self.oldest, math.inf if given_at is None else given_at)


class Asked:
    """A model as a task asks it: answers that it gave before are not asked again, and no more at once than it takes.

    A judge that fails is not asked again: its answers have a problem from then on, and the questions no score.
    """

    def __init__(
        self, model: Model, cache: Path | None, *, may_fail: bool = False, keep_days: float | None = None
    ) -> None:
        """Wrap a model.

        Args:
            model: whatever answers.
            cache: `DIDACT_CACHE`, where answers are kept; None keeps none.
            may_fail: make problems of what the model raises.
            keep_days: ask again what it answered longer ago; None where what answers cannot change behind its identity.
        """
        self.model = model
        not_before = 0.0 if keep_days is None else time.time() - keep_days * _DAY
        self._kept: KeptAnswers | None = None if cache is None else kept_answers(cache, model.identity, not_before)
        self._may_change = keep_days is not None
        self._began = time.time()
        self._places = asyncio.Semaphore(model.at_once)
        self._may_fail = may_fail
        self._failure: str | None = None
        self._unread = 0
        self.num_given = 0
        """Answers that it gave."""

    async def answer(self, ask: Ask, found: Kept) -> Answer:
        """What the model answers now, or answered before this evaluation, which `found` then counts; raises as the
        model."""
        kept = self._kept.get(ask) if self._kept is not None else None
        if self._kept is not None and kept is not None:
            given_at = self._kept.given_at(ask)
            if given_at is None or given_at < self._began:
                found.add(given_at)
            return kept
        async with self._places:
            if self._failure is not None:
                return Answer(problem=self._failure)
            try:
                answer = await self.model.answer(ask)
            except DidactError as error:
                if not self._may_fail:
                    raise
                if self._failure is not None:  # another question met the same end a moment ago
                    return Answer(problem=self._failure)
                name, words = self.model.identity.name, str(error)
                self._failure = words if words.startswith(name) else f"{name}: {words}"
                _log.warning("%s; it is not asked any more", self._failure)
                return Answer(problem=self._failure)
        self.num_given += 1
        if self._kept is not None:
            self._kept.put(ask, answer)
        return answer

    def read(self, score: Score) -> None:
        """Take up what became of a judge's replies to a question. One that never gives a verdict is not asked any more.

        A small model mostly cannot judge, and would write to the end of each of its replies all the same.
        """
        if self._unread < 0 or (score.problem is not None and not score.unjudged):
            return
        self._unread = self._unread + 1 if score.unjudged else -1  # one verdict shows that it can
        if self._unread == _UNREAD_IN_A_ROW and self._failure is None:
            self._failure = (
                f"{self.model.identity.name}: none of its replies to the first {_UNREAD_IN_A_ROW} questions holds a "
                f"verdict; {score.problem}. A larger model, or an endpoint, can judge"
            )
            _log.warning("%s; it is not asked any more", self._failure)

    def age(self, found: Kept) -> tuple[str, ...]:
        """How old the answers are that were not asked again, where what stands behind the model may have changed."""
        if not self._may_change or not math.isfinite(found.oldest):
            return ()
        day = datetime.fromtimestamp(found.oldest, UTC).date().isoformat()
        given = f"{found.count:,} answers were" if found.count > 1 else "1 answer was"
        return (
            f"{self.model.identity.name}: {given} given before, the oldest on {day} (UTC); "
            "keep_days: 0 of the endpoint asks again",
        )

    def close(self) -> None:
        """Close the file of answers."""
        if self._kept is not None:
            self._kept.close()


async def run_task(task: Task, asked: Mapping[Role, Asked], watch: Watch | None = None) -> TaskResult:
    """Measure one task on one model.

    Args:
        task: what to ask.
        asked: the model, and the judge or rival where the task asks them.
        watch: told of each question when it is scored.

    Raises:
        DidactError: the model can answer nothing any more.
    """
    started = time.perf_counter()
    found: dict[Role, Kept] = {role: Kept() for role in asked}
    used: set[Role] = set()  # a task that compares with the answers of a file asks no rival

    async def one(question: Question) -> Scored:
        scored = await _ask(task, question, asked, found, used)
        if watch is not None:
            watch(task, asked["model"].model, scored)
        return scored

    pending = [asyncio.create_task(one(question)) for question in task.questions]
    telling = asyncio.create_task(_tell(task, asked, pending))
    try:
        scored = tuple(await asyncio.gather(*pending))
    finally:
        for each in (*pending, telling):  # those that are left when one raised
            each.cancel()
    for role, kept in found.items():
        if kept.count:
            name = asked[role].model.identity.name
            _log.info("%s: answers of %s that were given before and not asked again: %d", task.name, name, kept.count)
    pairs = [(each.question, each.score) for each in scored]
    metrics, counts = task_metrics(task.name, task.metric, pairs, task.overall(pairs))
    return TaskResult(
        task=task.name,
        metrics=metrics,
        counts=counts,
        num_items=len(scored),
        seconds=time.perf_counter() - started,
        scored=scored,
        version=task.version,
        metric=task.metric,
        corrections=(*task.corrections, *(line for role, each in asked.items() for line in each.age(found[role]))),
        judge=_others({role: each for role, each in asked.items() if role != "rival" or role in used}),
    )


async def _tell(task: Task, asked: Mapping[Role, Asked], pending: Sequence["asyncio.Task[Scored]"]) -> None:
    """Say now and then how far a task is, until it is cancelled."""
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        done = sum(each.done() for each in pending)
        beside = [f"{role} {each.model.identity.name}: {each.num_given:,} replies" for role, each in asked.items()]
        _log.info("%s: %d of %d questions scored; %s", task.name, done, len(pending), ", ".join(beside))


def _others(asked: Mapping[Role, Asked]) -> dict[str, str]:
    """Names and digests of the judge, and of the rival, whose answers decide as well."""
    found: dict[str, str] = {}
    others: tuple[tuple[Role, str], ...] = (("judge", ""), ("rival", "rival "))
    for role, prefix in others:
        if (who := asked.get(role)) is not None:
            identity = who.model.identity
            found |= {f"{prefix}{key}": said for key, said in {"name": identity.name, **identity.digests}.items()}
    return found


async def _ask(
    task: Task, question: Question, asked: Mapping[Role, Asked], kept: Mapping[Role, Kept], used: set[Role]
) -> Scored:
    answers: tuple[Answer, ...] = ()
    own: tuple[Answer, ...] = ()
    while asks := task.asks(question, answers):
        used.update(ask.to for ask in asks)
        found = await asyncio.gather(*(asked[ask.to].answer(ask, kept[ask.to]) for ask in asks))
        answers = (*answers, *found)
        own = (*own, *(answer for ask, answer in zip(asks, found, strict=True) if ask.to == "model"))
        problem = next((each.problem for each in answers if each.problem is not None), None)
        if problem is not None:
            return Scored(question, own, Score(problem=problem))
    try:
        score = await asyncio.to_thread(task.score, question, answers)  # some run programs
    except Exception as error:  # noqa: BLE001 - a text that breaks its scorer costs its own question
        _log.warning("%s, question %s: its scorer broke", task.name, question.id, exc_info=True)
        score = Score(problem=f"its scorer broke ({type(error).__name__}: {error})")
    if "judge" in asked:
        asked["judge"].read(score)
    return Scored(question, own, score)
