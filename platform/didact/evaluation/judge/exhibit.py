"""What a judge is shown: a question, one answer or two, and the right answer where there is one."""

from dataclasses import dataclass

from didact.datasets.conversation import Message
from didact.evaluation.judge.fence import Block, Fence
from didact.evaluation.judge.verdict import Scale
from didact.evaluation.judge.wording import WORDING, Criteria, Language, language_of


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One judgement's material."""

    question: tuple[Message, ...]
    """Up to the first answer."""
    answers: tuple[str, ...]
    """The model's, one a turn; the last one is judged."""
    turns: tuple[str, ...] = ()
    """What the user says after each answer but the last."""
    rival: tuple[str, ...] | None = None
    """Answers to compare with, as many."""
    reference: tuple[str, ...] = ()
    """Right answers, one a turn, where there are some."""
    group: str = ""
    """Class of the question, which says what counts."""

    @property
    def empty(self) -> tuple[bool, bool]:
        """Whether the model's, and whether the rival's last answer says nothing."""
        return not self.answers[-1].strip(), self.rival is not None and not self.rival[-1].strip()

    @property
    def settled(self) -> float | None:
        """What a pair comes to without a judge: 0.5 where both say the same, 1 or 0 where one says nothing; else
        None."""
        if self.rival is None:
            return None
        mine, theirs = self.empty
        if mine or theirs:
            return 0.5 if mine and theirs else float(theirs)
        same = [each.strip() for each in self.answers] == [each.strip() for each in self.rival]
        return 0.5 if same else None


@dataclass(frozen=True, slots=True)
class Shown:
    """An exhibit as the judge reads it."""

    messages: tuple[Message, ...]
    fence: Fence


def show(exhibit: Exhibit, scale: Scale | None, language: str, criteria: Criteria, swapped: bool = False) -> Shown:
    """Write the prompt.

    Args:
        exhibit: what is judged.
        scale: of scores; None to compare.
        language: `auto`, `en` or `zh`.
        criteria: what counts in each class.
        swapped: show the rival's answer as A.
    """
    tongue: Language = language_of(exhibit.question[-1].content) if language == "auto" else _tongue(language)
    blocks = _blocks(exhibit, tongue, swapped)
    fence = Fence.around(blocks, tongue)
    words = WORDING.all
    notes = [words["reference"][tongue]] if any(exhibit.reference) else []
    if exhibit.turns:
        notes.append(words["last_turn"][tongue].format(turns=len(exhibit.answers)))
    system = words["system"]["pairwise" if scale is None else "score"][tongue].format(
        begins=fence.begins(words["any_block"][tongue]),
        ends=fence.ends(words["any_block"][tongue]),
        criteria=criteria.of(exhibit.group, tongue),
        reference="\n".join(notes),
        low=f"{scale.low:g}" if scale else "",
        high=f"{scale.high:g}" if scale else "",
    )
    return Shown((Message("system", system), Message("user", fence.enclose(blocks))), fence)


def repair(shown: Shown, reply: str, scale: Scale | None) -> tuple[Message, ...]:
    """The prompt with the judge's reply and the wish for the one line that it lacks."""
    words = WORDING.all["repair"]["pairwise" if scale is None else "score"][shown.fence.language]
    wish = words.format(low=f"{scale.low:g}", high=f"{scale.high:g}") if scale else words
    return (*shown.messages, Message("assistant", reply), Message("user", wish))


def _tongue(language: str) -> Language:
    return "zh" if language == "zh" else "en"


def _blocks(exhibit: Exhibit, tongue: Language, swapped: bool) -> list[Block]:
    names = WORDING.all["blocks"][tongue]
    several = bool(exhibit.turns)
    blocks = [Block(names[message.role], message.written) for message in exhibit.question[:-1]]
    asked = (exhibit.question[-1].content, *exhibit.turns)
    sides = [("", exhibit.answers)]
    if exhibit.rival is not None:
        first, second = (exhibit.rival, exhibit.answers) if swapped else (exhibit.answers, exhibit.rival)
        sides = [(" A", first), (" B", second)]
    for turn, question in enumerate(asked):
        number = f" {turn + 1}" if several else ""
        blocks.append(Block(f"{names['user']}{number}", question))
        if turn < len(exhibit.reference) and exhibit.reference[turn]:
            blocks.append(Block(f"{names['reference']}{number}", exhibit.reference[turn]))
        blocks += [Block(f"{names['answer']}{side}{number}", answers[turn]) for side, answers in sides]
    return blocks
