import pytest

from didact.evaluation import last_number, numbers_equal
from didact.evaluation.scorers.numbers import is_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 18.", "18"),
        ("#### 18", "18"),
        ("first 3, then 4", "4"),
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
        ("no number", None),
        ("", None),
        ("- . ,", None),
    ],
)
def test_last_number_reads_what_people_write(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("a", "b"),
    [("3.50", "3.5"), ("1,000", "1000"), ("$18", "18"), ("-0", "0"), ("007", "7"), ("1e3", "1000"), ("\u22125", "-5")],
)
def test_numbers_of_one_value_are_equal(a: str, b: str) -> None:
    assert numbers_equal(a, b)
    assert numbers_equal(b, a)


@pytest.mark.parametrize(("a", "b"), [("3", "-3"), ("3", "3.01"), (None, "3"), ("3", None), (None, None), ("x", "x")])
def test_other_things_are_not_equal(a: str | None, b: str | None) -> None:
    assert not numbers_equal(a, b)


def test_a_number_is_one_number_and_nothing_else() -> None:
    assert all(map(is_number, ("18", " -3.5 ", "$1,000", "2.1e+05")))
    assert not any(map(is_number, ("", "18 apples", "1/3", "0x1f", "3 4", "1,2")))


def test_absurd_exponents_are_not_read_as_powers() -> None:
    assert not numbers_equal("1e99999999999999999999", "1")
    assert last_number("1e99999999999999999999") == "99999999999999999999"
