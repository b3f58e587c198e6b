"""Queries as numbers of columns, functions and operators -> SQL text, in the two notations that data sets use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from didact.datasets.rows.fields import inner, items, take
from didact.datasets.rows.raw_row import BadRow


@dataclass(frozen=True, slots=True)
class _Notation:
    functions: tuple[str, ...]
    operators: tuple[str, ...]


# The numbering of WikiSQL (salesforce/WikiSQL, lib/query.py) and of the Chinese NL2SQL challenge (TableQA, Sun et al.
# 2020), which differ.
_ENGLISH = _Notation(("", "MAX", "MIN", "COUNT", "SUM", "AVG"), ("=", ">", "<"))
_CHINESE = _Notation(("", "AVG", "MAX", "MIN", "COUNT", "SUM"), (">", "<", "=", "<>"))
_JOINS = ("AND", "AND", "OR")


def write_sql(query: dict[str, Any], header: Sequence[str]) -> str:
    """SQL text of one query on one table, which is called `data`.

    Args:
        query: `sel`, `agg` and `conds`; with `cond_conn_op` it is in the Chinese notation.
        header: names of the table's columns.

    Raises:
        BadRow: a field is missing or of a wrong type, or a number that stands for nothing.
    """
    chinese = "cond_conn_op" in query
    notation = _CHINESE if chinese else _ENGLISH
    columns = items(query, "sel") if chinese else [take(query, "sel")]
    functions = items(query, "agg") if chinese else [take(query, "agg")]
    if len(columns) != len(functions) or not columns:
        raise BadRow("wrong_type", f"{len(columns)} columns and {len(functions)} functions; expected as many")
    selected = []
    for column, function in zip(columns, functions, strict=True):
        name, call = _column(header, column), _name(notation.functions, function, "function")
        selected.append(f"{call}({name})" if call else name)
    conditions = [
        f"{_column(header, column)} {_name(notation.operators, operator, 'operator')} {_literal(value)}"
        for column, operator, value in _conditions(query)
    ]
    where = f" {_name(_JOINS, query.get('cond_conn_op', 1), 'connection')} ".join(conditions)
    return f"SELECT {', '.join(selected)} FROM data" + (f" WHERE {where}" if where else "")


def _conditions(query: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    if isinstance(query.get("conds"), dict):
        named = inner(query, "conds")
        lists = [items(named, key) for key in ("column_index", "operator_index", "condition")]
        if len({len(each) for each in lists}) != 1:
            raise BadRow("wrong_type", "the lists of conds are of different lengths")
        return list(zip(*lists, strict=True))
    found = []
    for condition in items(query, "conds"):
        if not isinstance(condition, list) or len(condition) != 3:
            raise BadRow("wrong_type", "a condition is not a list of column, operator and value")
        found.append((condition[0], condition[1], condition[2]))
    return found


def _column(header: Sequence[str], number: Any) -> str:
    return '"' + _name(header, number, "column").replace('"', '""') + '"'


def _name(names: Sequence[str], number: Any, what: str) -> str:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
        raise BadRow("unknown_label", f"{what} {number!r} is none of 0 to {len(names) - 1}")
    return names[number]


def _literal(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"a condition's value is {type(value).__name__}, expected text or a number")
    return "'" + value.replace("'", "''") + "'"
