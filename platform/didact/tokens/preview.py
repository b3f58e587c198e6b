"""A sample as text, with what is learned made visible."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.text import Text
from transformers import PreTrainedTokenizerBase

from didact.display import visible
from didact.tokens.types import Sample

MARKS = (("[[", "]]"), ("<<<", ">>>"), ("{{{", "}}}"))
"""What may stand around learned text where there is no colour."""


def preview(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Text:
    """The sample decoded: learned text on green, the rest dim; characters that do not print as their code points."""
    shown = Text()
    for is_learned, text in _runs(sample, tokenizer):
        shown.append(visible(text), "black on green" if is_learned else "dim")
    return shown


def marked(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[str, str], list[str]]:
    """Samples as plain text for pipes and files, with marks around learned text.

    Returns:
        The marks, which are not in any of the texts if that can be, and each sample's text.
    """
    runs = [[(learned, visible(text)) for learned, text in _runs(sample, tokenizer)] for sample in samples]
    whole = "".join(text for sample in runs for _, text in sample)
    begin, end = next((each for each in MARKS if not any(mark in whole for mark in each)), MARKS[0])
    return (begin, end), [
        "".join(f"{begin}{text}{end}" if learned else text for learned, text in sample) for sample in runs
    ]


def _runs(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[bool, str]]:
    """Runs of equal mask, each decoded together, so that characters of several tokens stay whole."""
    learned = [bool(flag) for flag in sample.mask]
    learned[:1] = [False]  # the first token has no predecessor that could predict it
    for is_learned, positions in groupby(range(len(learned)), key=learned.__getitem__):
        yield is_learned, tokenizer.decode([int(sample.ids[position]) for position in positions])
