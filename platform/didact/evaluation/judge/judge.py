"""How a judge is asked about exhibits, round by round, and what its replies come to."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from didact.evaluation.asks import Answer, Generation
from didact.evaluation.judge.exhibit import Exhibit, Shown, repair, show
from didact.evaluation.judge.verdict import Scale, read_verdict
from didact.evaluation.judge.wording import WORDING, Criteria
from didact.files import fingerprint
from didact.spec import JudgingSpec

VERSION = "judge, 3"
"""Another one where verdicts are read or put together otherwise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judgement of one exhibit."""

    exhibit: int
    swapped: bool
    number: int
    """Its pass, from 0."""
    value: float | None
    """A score; of a pair 1 where the model's answer is better, -1 where the rival's is, 0 for a tie. None where the
    judge gave none that counts."""
    shown_first: bool | None
    """Of a pair that is no tie: whether the answer shown first was held to be better."""
    words: str
    """What the judge wrote."""
    why: str
    """Why there is no value."""


@dataclass(frozen=True)
class Judge:
    """A judge's questions and how its replies are read. Who answers is the model that is asked `to="judge"`."""

    settings: JudgingSpec
    scale: Scale | None
    """Of scores; None to compare."""
    criteria: Criteria = field(default_factory=lambda: Criteria({}))

    @classmethod
    def build(cls, settings: JudgingSpec, scale: Scale | None) -> "Judge":
        """Read the criteria that the settings name.

        Raises:
            DataError: they cannot be read.
        """
        return cls(settings, scale, Criteria.read(settings.criteria))

    @property
    def version(self) -> str:
        """Hex digest of all that decides what it is told and how it is read."""
        settings = self.settings.model_dump(mode="json", exclude={"criteria"})
        scale = [self.scale.low, self.scale.high] if self.scale else None
        own = dict(self.criteria.own)
        return fingerprint(
            {"words": WORDING.digest, "own": own, "settings": settings, "scale": scale, "version": VERSION}
        )

    def asks(self, exhibits: Sequence[Exhibit], answers: tuple[Answer, ...]) -> tuple[Generation, ...]:
        """What to ask the judge next, given its answers so far: first every judgement, then one repair of each that
        cannot be read."""
        seats = self._seats(exhibits)
        if len(answers) < len(seats):
            return tuple(self._ask(self._shown(exhibits, seat).messages, seat.number) for seat in seats)
        unread = self._unread(exhibits, seats, answers)
        if len(answers) > len(seats) or not unread:
            return ()
        return tuple(
            self._ask(repair(self._shown(exhibits, seats[place]), answers[place].text, self.scale), seats[place].number)
            for place in unread
        )

    def verdicts(self, exhibits: Sequence[Exhibit], answers: tuple[Answer, ...]) -> tuple[Verdict, ...]:
        """Every judgement, in the order of exhibits, positions and passes."""
        seats = self._seats(exhibits)
        repaired = dict(zip(self._unread(exhibits, seats, answers), answers[len(seats) :], strict=False))
        return tuple(
            self._verdict(exhibits, seat, answers[place], repaired.get(place)) for place, seat in enumerate(seats)
        )

    def _seats(self, exhibits: Sequence[Exhibit]) -> list["_Seat"]:
        orders = (False, True) if self.scale is None and self.settings.swap else (False,)
        return [
            _Seat(place, swapped, number)
            for place, exhibit in enumerate(exhibits)
            if not exhibit.empty[0] and exhibit.settled is None  # what an empty answer is worth needs no judge
            for swapped in orders
            for number in range(self.settings.passes)
        ]

    def _ask(self, messages: tuple, number: int) -> Generation:  # type: ignore[type-arg]
        return Generation(messages, self.settings.max_new_tokens, to="judge", attempt=number)

    def _shown(self, exhibits: Sequence[Exhibit], seat: "_Seat") -> Shown:
        return show(exhibits[seat.exhibit], self.scale, self.settings.language, self.criteria, seat.swapped)

    def _unread(self, exhibits: Sequence[Exhibit], seats: list["_Seat"], answers: tuple[Answer, ...]) -> list[int]:
        """Places of replies that are there and hold no verdict. An empty one cannot be quoted back."""
        return [
            place
            for place, (seat, answer) in enumerate(zip(seats, answers, strict=False))
            if answer.problem is None and answer.text.strip()
            if self._verdict(exhibits, seat, answer, None).value is None
        ]

    def _verdict(self, exhibits: Sequence[Exhibit], seat: "_Seat", answer: Answer, repaired: Answer | None) -> Verdict:
        told = [each for each in (answer, repaired) if each is not None]
        words = "\n".join(each.text for each in told)
        last = told[-1]
        if last.problem is not None or not last.texts:
            why = last.problem or "it gave no answer"
            return Verdict(seat.exhibit, seat.swapped, seat.number, None, None, words, why)
        code = self._shown(exhibits, seat).fence.code
        reading = read_verdict(last.text, self.scale, code, last.texts[0].finish)
        value = reading.value
        first = None
        if value is not None and self.scale is None:
            first = None if value == 0 else value > 0
            value = -value if seat.swapped else value
        return Verdict(seat.exhibit, seat.swapped, seat.number, value, first, words, reading.why)


@dataclass(frozen=True, slots=True)
class _Seat:
    """One judgement that is wanted."""

    exhibit: int
    swapped: bool
    number: int
