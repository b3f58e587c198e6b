"""A sample as text, with what is learned made visible."""

from itertools import groupby

from rich.markup import escape
from transformers import PreTrainedTokenizerBase

from didact.tokens.types import Sample


def preview(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> str:
    """The sample decoded as rich markup: learned tokens on green, the rest dim.

    Runs of equal mask are decoded together, so that characters of several tokens stay whole.
    """
    learned = [bool(flag) for flag in sample.mask]
    learned[:1] = [False]  # the first token has no predecessor that could predict it
    parts = []
    for is_learned, positions in groupby(range(len(learned)), key=learned.__getitem__):
        text = tokenizer.decode([int(sample.ids[position]) for position in positions])
        body = text.rstrip("\\")
        # Backslashes before a tag escape it unless they are doubled, of which rich's `escape` does one only.
        text = escape(body) + 2 * text[len(body) :]
        parts.append(f"[black on green]{text}[/]" if is_learned else f"[dim]{text}[/]")
    return "".join(parts)
