"""Which language a text is in, told from its words: formulas and single letters have none."""

import re

from didact.datasets.rows.options import Language

_HAN = re.compile(r"[\u3400-\u9fff]")
# Letters of a word: those that stand alone are names of choices and of unknowns.
_WORD = re.compile(r"(?:(?![\u3400-\u9fff])[^\W\d_]){2,}")
_FORMULA = re.compile(
    r"\$\$.*?\$\$|\$(?! )[^$\n]{1,300}(?<! )\$(?!\d)|\\\(.*?\\\)|\\\[.*?\\\]"
    r"|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\\[A-Za-z]+\*?(?:\{[^{}\u3400-\u9fff]*\})*",
    re.DOTALL,
)


def without_formulas(text: str) -> str:
    """A text without what is written in LaTeX; two sums of money are no formula."""
    return _FORMULA.sub(" ", text) if "\\" in text or "$" in text else text


def has_words(text: str) -> bool:
    """Whether a text has words in any language beside its formulas."""
    spoken = without_formulas(text)
    return bool(_HAN.search(spoken) or _WORD.search(spoken))


def language_of(text: str) -> Language:
    """`zh` where at least three of ten letters in words are Chinese characters."""
    spoken = without_formulas(text)
    num_han = len(_HAN.findall(spoken))
    return "zh" if num_han and num_han >= 0.3 * (num_han + sum(map(len, _WORD.findall(spoken)))) else "en"
