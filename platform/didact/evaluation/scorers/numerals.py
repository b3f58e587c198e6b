"""Chinese numerals: three hundred and twenty is 三百二十, 1005 is 一千零五, 20,000 is 两万."""

import re
from fractions import Fraction

_DIGITS = {
    **{mark: value for value, mark in enumerate("零一二三四五六七八九")},
    **{mark: value for value, mark in enumerate("〇壹贰叁肆伍陆柒捌玖")},
    "两": 2,
}
_TENS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
SCALES = {"万": 10**4, "亿": 10**8}
_FIGURES, _WHOLE = "".join(_DIGITS), "".join((*_DIGITS, *_TENS, *SCALES))
NUMERAL = rf"[{_WHOLE}]+(?:点[{_FIGURES}]+)?"
"""What may be one; `chinese_value` says whether it is."""
# Words in which 一 counts nothing, such as 一样 (alike), 一共 (in all), 第一 (first).
_NO_COUNT = re.compile(
    "[第统唯之万同每任某单专]一|一[样共起些定般直旦切致边面方时下种步律并般会道点儿]|(?<![一二三四五六七八九两十百])千万|十分|百分|万一"
)


def chinese_numerals(text: str) -> list[tuple[str, Fraction]]:
    """Every Chinese numeral of a text, with its value; digits that belong to other words are none."""
    plain = _NO_COUNT.sub(lambda found: " " * len(found[0]), text)
    found = [(each[0], chinese_value(each[0])) for each in re.finditer(NUMERAL, plain)]
    return [(written, value) for written, value in found if value is not None]


def chinese_value(written: str) -> Fraction | None:
    """The value of a numeral, or None where it is none: tens, hundreds and thousands in order, or figures alone."""
    whole, _, decimals = written.partition("点")
    value = _figures(whole) if not set(whole) - set(_FIGURES) else _spoken(whole)
    behind = _figures(decimals) if decimals else 0
    return None if value is None or behind is None else value + Fraction(behind, 10 ** len(decimals))


def _figures(written: str) -> int | None:
    """二〇二六: a figure after the other, as of a year."""
    return int("".join(str(_DIGITS[each]) for each in written)) if 0 < len(written) <= 20 else None


def _spoken(written: str) -> int | None:
    for scale in ("亿", "万"):
        head, found, tail = written.rpartition(scale)
        if found:
            above = _spoken(head) if head else None
            below = _below(tail, SCALES[scale])
            return None if above is None or below is None else above * SCALES[scale] + below
    return _below_ten_thousand(written)


def _below(written: str, scale: int) -> int | None:
    """What follows a scale; a figure alone is of the next lower unit, as 两万五 is 25,000."""
    if not written:
        return 0
    if len(written) == 1 and written in _DIGITS and _DIGITS[written]:
        return _DIGITS[written] * scale // 10
    return _spoken(written)


def _below_ten_thousand(written: str) -> int | None:
    total, figure, last, bare = 0, None, 10**4, False
    for mark in written:
        if mark in _TENS:
            unit = _TENS[mark]
            if unit >= last or (figure is None and (unit > 10 or bare)):
                return None
            total, figure, last, bare = total + (1 if figure is None else figure) * unit, None, unit, False
        elif _DIGITS.get(mark) == 0 and figure is None:
            bare = True  # 零 stands for units that are left out
        elif mark in _DIGITS and figure is None:
            figure = _DIGITS[mark]
        else:
            return None
    if figure is None:
        return total
    return total + figure * (1 if bare or last == 10**4 else last // 10)
