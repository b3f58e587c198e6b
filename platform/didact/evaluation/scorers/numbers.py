"""Numbers in a model's words: find the last one, and compare two as quantities."""

# ruff: noqa: RUF001, RUF002 - signs of other scripts, as people write them.
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial

from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.numerals import SCALES, chinese_numerals, chinese_value
from didact.evaluation.scorers.scorer import NamedScorer, accepted, judged, plain_signs
from didact.spec import NumberScorer

_ASCII_MINUS = str.maketrans(dict.fromkeys("\u2212\u2013\ufe63\uff0d", "-") | {"\u2044": "/"})
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{\s*(-?)\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}"), r" \1\2/\3"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\(?=[%$])"), ""),
    (re.compile(r"(?<=[0-9])(?:\{,\}|\\,)(?=[0-9]{3}(?![0-9]))"), ","),
)
_LETTER = "A-Za-z\u00c0-\u024fµμ"
_THIN = "\u00a0\u2009\u202f"
_CODE = r"(?:USD|EUR|GBP|CNY|RMB|JPY|HKD|INR)"
# Three groups of three digits may as well be three numbers.
_BLANK_GROUPS = r"(?<![0-9] )(?:[0-9]{1,2}(?: [0-9]{3})+|[0-9]{3} [0-9]{3})(?! ?[0-9])"
_WHOLE = rf"(?:[0-9]{{1,3}}(?:[,'][0-9]{{3}})+(?![0-9])|[0-9]{{1,3}}(?:_[0-9]{{3}})+(?![0-9])|{_BLANK_GROUPS}|[0-9]+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)"
_RAISED_TO, _RAISED_END = r"(?:\^|\*\*)\s*\{?\s*", r"\s*\}?(?![0-9A-Za-z])"
# Marks of things that hold digits (m2, H2O, x_1, cm^2) are read as one piece, so that their digits are no numbers.
_RAISED_THING = rf"[{_LETTER}_)}}\]]\^\{{?-?[0-9]+\}}?"
_THING = rf"{_RAISED_THING}|(?!(?<=[0-9])[xX][0-9])(?:[{_LETTER}_]|_\{{)[0-9][0-9{_LETTER}]*(?:\.[0-9]+)*"
# Written as one quantity, which people read in two ways or a sign apart: decimal commas, points between thousands,
# quotients of decimals, hexadecimals.
_ODD = (
    r"(?<![0-9.,])[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+(?![0-9])|(?<![0-9.,])[0-9]{1,3}(?:\.[0-9]{3}){2,}(?![0-9.])"
    r"|(?<![0-9.,])[0-9]+,[0-9]{1,2}(?![0-9,])"
    r"|(?<![0-9.])[0-9]*\.[0-9]+\s?/\s?[0-9]+|(?<![0-9./])[0-9]+\s?/\s?-\s?[0-9]+|\b0[xX][0-9A-Fa-f]+\b"
)
_NUMBER = re.compile(
    rf"(?P<odd>{_ODD})|"
    # A dash after a letter, a digit or a bracket is a subtraction or a hyphen ("10-3" ends in 3); with a blank behind
    # it, it is a sign only where a value is expected.
    rf"(?P<sign>(?<![A-Za-z0-9_).\]}}%])-|(?:[=:(\[{{≈]|\b(?:is|equals)\b|[是为得])\s*-\s+|\bnegative\s+|负"
    r"|(?:\A|[=:(\[{≈,.;]\s*|\b(?:is|are|be|equals|to|of)\s+)minus\s+)?"
    rf"(?:{_CODE}\s*)?[$€£¥]?(?:(?<=[$€£¥])(?P<inner>-))?"
    rf"(?:(?P<units>[0-9]+)\s+(?=[0-9]+/))?"
    rf"(?:(?<![/0-9.])(?P<over>[0-9]+)\s?/\s?(?P<under>[0-9]+)(?![/0-9])(?!\s?/\s?[0-9])"
    rf"|(?P<base>[0-9]{{1,4}}){_RAISED_TO}(?P<power>[+-]?[0-9]{{1,3}}){_RAISED_END}"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[+-]?[0-9]{{1,3}})(?![0-9A-Za-z])(?!\.[0-9])"
    rf"|\s*[x×*·]\s*10{_RAISED_TO}(?P<ten>[+-]?[0-9]{{1,3}}){_RAISED_END}|(?![eE][+-]?[0-9]{{4}})))"
    rf"(?P<unit>\s*[%‰]|[kKM](?![A-Za-z0-9])|\s*per\s?cent\b|\s*(?:百万|千万|万亿|[万亿])|\s+(?:thousand|million|billion|trillion)\b)?"
    rf"|(?P<thing>{_THING}|[0-9.]+[eE][+-]?[0-9]{{4,}})"
)
_CURRENCY_BEHIND = re.compile(rf"\s*(?:[$€£¥元円]|{_CODE})\s*\Z")
_NUMERAL = "[零〇一二两三四五六七八九十百千万亿]+"
_FRACTION_SPOKEN = re.compile(rf"(负?)({_NUMERAL})分之({_NUMERAL})")
_PERCENT_SPOKEN = re.compile(r"百分之(负?)([^\s,.;:!?，。；：！？]+)")
_UNITS = (
    {"%": Fraction(1, 100), "‰": Fraction(1, 1000)}
    | {
        **dict.fromkeys("kK", Fraction(10**3)),
        "M": Fraction(10**6),
        "thousand": Fraction(10**3),
        "million": Fraction(10**6),
    }
    | {
        "billion": Fraction(10**9),
        "trillion": Fraction(10**12),
        **{"百万": Fraction(10**6), "千万": Fraction(10**7), "万亿": Fraction(10**12)},
        **{mark: Fraction(scale) for mark, scale in SCALES.items()},
    }
)


@dataclass(frozen=True, slots=True)
class _Quantity:
    """A number that was read."""

    plain: str
    """In plain digits, as it was written."""
    bare: Fraction
    """Without its unit: 50 of `50%`."""
    unit: str = ""
    """`%`, or a word for a power of ten."""

    @property
    def value(self) -> Fraction:
        return self.bare * _UNITS.get(self.unit, 1)

    def readings(self, other: "_Quantity") -> tuple[Fraction, ...]:
        """Its values beside another number: where only one of two names the unit, it may be that of the question."""
        return (self.value,) if self.unit == other.unit or not self.unit or other.unit else (self.value, self.bare)


def last_number(text: str) -> str | None:
    """The last number in `text` as plain digits, or None where there is none.

    Reads `1,234` (as `1234`; also with blanks, full-width digits and marks), `-5`, `$18`, `-$5`, `18 元`, `3.50`, `.5`,
    `1.5e-3`, `6×10^6` (as `6e6`), `3/4`, `1 1/2` (as `3/2`), `50%` (as `50`), `3万` (as `30000`), `1.5k` and `1.5M` (as
    `1500000`), a full stop after the number, `#### 18`, and the typographic minus signs. Leading and trailing zeros are
    kept. Digits of things that hold some (`m2`, `H2O`) are no numbers. Chinese numerals (`三百二十`) are read where no
    number in digits stands.
    """
    found = _last(text)
    return found.plain if found else None


def is_number(text: str) -> bool:
    """Whether `text` is one number and nothing else, its currency, its per cent sign and blanks aside."""
    return _quantity(text) is not None


def numbers_equal(a: str | None, b: str | None) -> bool:
    """Whether both texts are numbers of the same value (`3.50` and `3.5`, `1,000` and `1000`); None equals nothing.

    `50%` is both 50 and 0.5, since the question may have asked for per cent; the same holds for `3万`.
    """
    return _near(_quantity(a), _quantity(b), Fraction(0))


def same_number(number: str) -> str:
    """One writing for all writings of a quantity (`1,000.0` and `1e3`); other text stays as it is."""
    quantity = _quantity(number)
    if quantity is None:
        return number
    return f"{quantity.value.numerator:x}/{quantity.value.denominator:x}"  # Python writes no decimals of such length


def number_scorer(spec: NumberScorer) -> NamedScorer:
    """Right when the last number of the text is an accepted one."""
    return NamedScorer(partial(_score, Fraction(str(spec.tolerance))), "number, 4", reads="last", same=same_number)


def _score(tolerance: Fraction, question: Question, text: str) -> Score:
    found = _last(text)
    right = any(_near(found, _quantity(each), tolerance) for each in accepted(question))
    return judged(right, found.plain if found else None)


def _near(found: _Quantity | None, aim: _Quantity | None, tolerance: Fraction) -> bool:
    if found is None or aim is None:
        return False
    pairs = ((mine, its) for mine in found.readings(aim) for its in aim.readings(found))
    return any(abs(mine - its) <= tolerance * abs(its) for mine, its in pairs)


def _last(text: str) -> _Quantity | None:
    plain = _ascii(text)
    if (alone := _quantity(plain)) is not None:
        return alone
    found = [quantity for each in _NUMBER.finditer(plain) if (quantity := _read(each)) is not None]
    if found:
        return found[-1]
    return _spoken(plain)


def _quantity(text: str | None) -> _Quantity | None:
    """A text that is a number and nothing else."""
    plain = _CURRENCY_BEHIND.sub("", _ascii(text or "").strip().removesuffix(".").strip())
    plain = re.sub(r"\A([-+])\s+(?=[$€£¥.0-9])", r"\1", plain).removeprefix("+")
    if match := _NUMBER.fullmatch(plain):
        return _read(match)
    value = chinese_value(plain.removeprefix("负")) if plain and not plain.isascii() else None
    if value is not None:
        return _written(-value if plain.startswith("负") else value)
    spoken = _PERCENT_SPOKEN.fullmatch(plain) or _FRACTION_SPOKEN.fullmatch(plain)
    return _spoken(plain) if spoken else None


def _read(match: re.Match[str]) -> _Quantity | None:
    if match["thing"] is not None or match["odd"] is not None:
        return None
    sign = "-" if match["sign"] or match["inner"] else ""
    unit = (match["unit"] or "").strip()
    unit = "%" if unit.startswith("per") else unit
    if match["over"]:
        over, under = int(Decimal(match["over"])), int(Decimal(match["under"]))
        if not under:
            return None
        over += under * int(Decimal(match["units"] or 0))
        written, bare = f"{over}/{under}" if len(match[0]) < 200 else match["over"], Fraction(over, under)
    elif match["base"]:
        power = int(match["power"])
        base = Fraction(match["base"])
        if not base and power < 0:
            return None
        bare = base**power
        written = f"1e{power}" if base == 10 else _written(bare).plain
    else:
        digits = re.sub(r"[, _']", "", match["decimal"])
        exponent = match["exponent"] or match["ten"]
        written = f"{digits}e{exponent}" if exponent else digits
        bare = Fraction(Decimal(written))
    quantity = _Quantity(sign + written, -bare if sign else bare, unit)
    return quantity if unit in ("", "%", "‰") else _Quantity(_written(quantity.value).plain, quantity.bare, unit)


def _written(value: Fraction) -> _Quantity:
    """A value in plain digits."""
    plain = f"{value.numerator}/{value.denominator}"
    if (Fraction(10) ** 30 * value).denominator == 1:  # it has an end in decimals
        plain = f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
    return _Quantity(plain, value)


def _spoken(text: str) -> _Quantity | None:
    """The last Chinese numeral."""
    if percents := list(_PERCENT_SPOKEN.finditer(text)):
        found = chinese_numerals(percents[-1][2])
        if found and percents[-1][2].startswith(found[0][0]):
            value = -found[0][1] if percents[-1][1] else found[0][1]
            return _Quantity(_written(value).plain, value, "%")
    if fractions := _FRACTION_SPOKEN.findall(text):
        sign, under, over = fractions[-1]
        if (whole := chinese_value(under)) and (part := chinese_value(over)) is not None:
            return _written(Fraction(part) / Fraction(whole) * (-1 if sign else 1))
    numerals = chinese_numerals(text)
    if not numerals:
        return None
    written, value = numerals[-1]
    return _written(-value if text[: text.rfind(written)].endswith("负") else value)


def _ascii(text: str) -> str:
    """A text with plain digits and marks; raised digits as powers, `½` apart from what stands before it."""
    if text.isascii():
        plain = text
    else:
        grouped = re.sub(rf"(?<=[0-9])[{_THIN}](?=[0-9]{{3}}(?![0-9]))", ",", text)
        plain = plain_signs(grouped).translate(_ASCII_MINUS)
    for pattern, instead in _LATEX:
        plain = pattern.sub(instead, plain)
    return plain
