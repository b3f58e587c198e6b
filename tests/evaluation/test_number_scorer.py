# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import pytest

from didact.evaluation import last_number, numbers_equal
from didact.evaluation.scorers.numbers import is_number, same_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 18.", "18"),
        ("#### 18", "18"),
        ("first 3, then 4", "4"),
        ("about 1.5M people", "1500000"),
        ("it costs $2.5k.", "2500"),
        ("a run of 10K", "10000"),
        ("5m long", "5"),
        ("2 Men", "2"),
        ("It costs $1,234.50 in all.", "1234.50"),
        ("1,234,567", "1234567"),
        ("a list: 1,2,3", "3"),
        ("a list: 12,3456", "3456"),
        ("x = -5", "-5"),
        ("-5", "-5"),
        ("x=-5", "-5"),
        ("\u22125 degrees", "-5"),
        ("\u20137", "-7"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("10-3", "3"),
        ("pages 3\u20135", "5"),
        ("10 - 3", "3"),
        ("(2)-4", "4"),
        ("- 5 apples", "5"),
        (".5", ".5"),
        ("-.5", "-.5"),
        ("3.50", "3.50"),
        ("007", "007"),
        ("1.5e-3", "1.5e-3"),
        ("50%", "50"),
        ("\\boxed{42}", "42"),
        # Other letters and marks for the same digits, and thousands as they are written elsewhere.
        ("１，０００", "1000"),
        ("共有1，000人", "1000"),
        ("１２．５", "12.5"),
        ("−５", "-5"),
        ("④", "4"),
        ("1 000", "1000"),
        ("12 345 678.5", "12345678.5"),
        ("1\u202f000\u202f000", "1000000"),
        ("1{,}000", "1000"),
        ("1_000", "1000"),
        ("100 200 300", "300"),
        ("In 2024 500 came", "500"),
        # Signs apart from their number, where a value is expected.
        ("- 5", "-5"),
        ("x = - 5", "-5"),
        ("The answer is - 5.", "-5"),
        ("\\boxed{- 5}", "-5"),
        ("negative 5", "-5"),
        ("答案是-5", "-5"),
        ("12 - 5", "5"),
        # Powers of ten.
        ("6×10^6", "6e6"),
        ("6*10^6 people", "6e6"),
        ("6 x 10^-3", "6e-3"),
        ("$6.02 \\times 10^{23}$", "6.02e23"),
        ("6×10⁶", "6e6"),
        ("6e6", "6e6"),
        ("10^6", "1e6"),
        ("2^10", "1024"),
        ("1.5 million", "1500000"),
        # Things that hold digits.
        ("5 m2", "5"),
        ("5m²", "5"),
        ("12 cm^2", "12"),
        ("12 m^{3}", "12"),
        ("18 g of H2O", "18"),
        ("3 mol CO2", "3"),
        ("x_1 is 7, as x_{1}", "7"),
        ("Step1", None),
        # Currency, before and behind.
        ("18$", "18"),
        ("18 €", "18"),
        ("18元", "18"),
        ("USD 18", "18"),
        ("US$18.50", "18.50"),
        # Fractions.
        ("1 1/2", "3/2"),
        ("2½ cups", "5/2"),
        ("\\frac{3}{4}", "3/4"),
        ("1\\frac{1}{2}", "3/2"),
        ("-3/4", "-3/4"),
        ("12/25/2026", "2026"),
        # Chinese numerals, where no number in digits stands.
        ("三百二十", "320"),
        ("答案是两万。", "20000"),
        ("一千零五个", "1005"),
        ("十五", "15"),
        ("二十万零三百", "200300"),
        ("两万五", "25000"),
        ("二〇二六年", "2026"),
        ("负三点五", "-3.5"),
        ("百分之五十", "50"),
        ("3万", "30000"),
        ("1.5亿元", "150000000"),
        ("小明有18个，和小红一样多", "18"),
        ("他们一样多", None),
        ("万一不行", None),
        ("三十百", None),
        # Words for signs and units, fractions, groups set apart by apostrophes.
        ("minus 5", "-5"),
        ("The answer is minus 5.", "-5"),
        ("10 minus 5", "5"),
        (r"It is \frac{-3}{4}", "-3/4"),
        ("50 percent", "50"),
        ("about 12.5 per cent", "12.5"),
        ("1'000", "1000"),
        ("1’234’567", "1234567"),
        ("三分之一", "1/3"),
        ("答案是负三分之二", "-2/3"),
        # One quantity that is none of its parts: not read.
        ("0,5", None),
        ("It is 12,5.", None),
        ("1.234,5", None),
        ("1.000.000", None),
        ("1.5/2", None),
        ("5/-10", None),
        ("0x1F", None),
        ("no number", None),
        ("", None),
        ("- . ,", None),
    ],
)
def test_last_number_reads_what_people_write(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("a", "b"),
    [
        *(("3.50", "3.5"), ("1,000", "1000"), ("$18", "18"), ("-0", "0"), ("007", "7"), ("1e3", "1000")),
        *(("\u22125", "-5"), ("18 €", "18"), ("- 5", "-5"), ("6×10^6", "6e6"), ("6e6", "6,000,000")),
        *(
            ("50%", "50"),
            ("50%", "0.5"),
            ("50 %", "1/2"),
            ("5‰", "0.005"),
            ("5‰", "0.5%"),
            ("1.5k", "1500"),
            ("百分之五十", "50%"),
            ("50\\%", "50"),
        ),
        *(("5‰", "0.005"), ("5‰", "0.5%"), ("1.5k", "1500")),
        *(("1 1/2", "1.5"), ("3/4", "6/8"), ("½", "0.5"), ("三百二十", "320"), ("3万", "30000"), ("3万", "3")),
    ],
)
def test_numbers_of_one_value_are_equal(a: str, b: str) -> None:
    assert numbers_equal(a, b)
    assert numbers_equal(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        *(("3", "-3"), ("3", "3.01"), (None, "3"), ("3", None), (None, None), ("x", "x")),
        *(("0.5%", "50%"), ("3万", "3 million"), ("1/3", "0.33"), ("m2", "2"), ("1/0", "1")),
    ],
)
def test_other_things_are_not_equal(a: str | None, b: str | None) -> None:
    assert not numbers_equal(a, b)


def test_a_number_is_one_number_and_nothing_else() -> None:
    assert all(map(is_number, ("18", " -3.5 ", "$1,000", "2.1e+05", "18 元", "50%", "1/3", "三百二十")))
    assert not any(map(is_number, ("", "18 apples", "0x1f", "3 4", "1,2", "m2", "1/2/3", "一样", "18 and 19")))


def test_absurd_exponents_are_not_read_as_powers() -> None:
    assert not numbers_equal("1e99999999999999999999", "1")
    assert last_number("1e99999999999999999999") is None
    assert same_number("9" * 5000) == same_number("9" * 5000 + ".0") != same_number("9" * 5001)
