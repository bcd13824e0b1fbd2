"""The language of cross-column rules: comparisons, arithmetic and a few functions, never `eval`."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from infra.errors import InvalidRequest, TooLarge
from infra.plugins import require

MAX_CHARACTERS = 2_000
MAX_NODES = 400
MAX_DEPTH = 40
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
LITERALS = ("column", "date", "moment")
"""Functions of one text in quotes, which is read when the expression is."""
_LARGEST = 2**63
"""Beyond it a whole number is none of a column's."""
_FUNCTIONS: Mapping[str, str] = {
    "abs": "value",
    "length": "value",
    "lower": "value",
    "upper": "value",
    "strip": "value",
    "starts_with": "value and text",
    "ends_with": "value and text",
    "contains": "value and text",
    "matches": "value and text",
    "is_missing": "value",
    "year": "value",
    "month": "value",
    "day": "value",
    "weekday": "value",
    "column": "text",
    "date": "text",
    "moment": "text",
}
"""What each takes; a text stands in quotes."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; `a + b <= 1.5 * c and d in ['x', 'y']` is one.

    A comparison with a missing value is missing itself, as in SQL. `column('a b')` names a column
    whose name is no word; `date('2024-01-31')` and `moment('2024-01-31T12:00:00+00:00')` are
    points in time.
    """

    text: str
    tree: ast.expr
    columns: tuple[str, ...]
    """Names it reads, sorted."""


def parse(text: str) -> Expression:
    """Read an expression; nothing of it is run.

    Raises:
        InvalidRequest: it is malformed, reads no column, or has something the language does not;
            the message says what, and the nearest function of an unknown one.
        TooLarge: it is longer, deeper or has more parts than an expression may.
    """
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(f"An expression has {len(text)} characters; at most {MAX_CHARACTERS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the \d in a pattern
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", "") or str(error) or type(error).__name__
        raise InvalidRequest(f"{text!r} is not an expression: {reason}") from None
    _bound(tree, text)
    columns = sorted(set(_Reading(text).columns(tree)))
    if not columns:
        raise InvalidRequest(f"{text!r} reads no column, so it says nothing of a row")
    return Expression(text, tree, tuple(columns))


def check_pattern(pattern: str) -> None:
    """See that a regular expression is one that takes linear time: no look-around, no references.

    Raises:
        InvalidRequest: it is malformed or cannot be run so.
    """
    pl = require("polars", extra="data")
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("error:")), lines[0])
        raise InvalidRequest(
            f"{pattern[:200]!r} is not a regular expression of the RE2 kind: "
            f"{reason.removeprefix('error: ')}"
        ) from None


def point_in_time(kind: str, text: str) -> date | datetime:
    """Return the date or moment that ISO 8601 text says.

    Raises:
        ValueError: it says none.
    """
    return date.fromisoformat(text) if kind == "date" else datetime.fromisoformat(text)


def _bound(tree: ast.AST, text: str) -> None:
    waiting, count = [(tree, 1)], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise TooLarge(
                f"The expression {text[:60]!r} is nested deeper than {MAX_DEPTH} levels or has "
                f"more than {MAX_NODES} parts; split it into several checks"
            )
        waiting += [(child, depth + 1) for child in ast.iter_child_nodes(node)]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Sees that each part of a tree is of the language, and yields the columns it names."""

    text: str

    def columns(self, node: ast.expr) -> Iterator[str]:
        match node:
            case ast.Name(id=name):
                yield name
            case ast.Constant(value=value):
                self._check_constant(value)
            case ast.Call():
                yield from self._call(node)
            case ast.Compare(left=left, ops=ops, comparators=others):
                if any(isinstance(op, ast.In | ast.NotIn | ast.Is | ast.IsNot) for op in ops[:-1]):
                    raise self._wrong("'in' and 'is' end a chain of comparisons; write 'and'")
                yield from self.columns(left)
                for operator, other in zip(ops, others, strict=True):
                    yield from self._comparison(operator, other)
            case _:
                for part in self._parts(node):
                    yield from self.columns(part)

    def _parts(self, node: ast.expr) -> list[ast.expr]:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, ARITHMETIC):
                return [left, right]
            case ast.BoolOp(values=values):
                return values
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
                return [operand]
            case ast.IfExp(test=test, body=body, orelse=other):
                return [test, body, other]
        raise self._foreign(node)

    def _comparison(self, operator: ast.cmpop, other: ast.expr) -> Iterator[str]:
        is_none = isinstance(other, ast.Constant) and other.value is None
        if isinstance(operator, ast.In | ast.NotIn):
            if not isinstance(other, ast.List | ast.Tuple | ast.Set):
                raise self._wrong("'in' needs a list such as ['a', 'b'] after it")
            for item in other.elts:
                if list(self.columns(item)):
                    raise self._wrong("the list after 'in' may hold values only")
        elif isinstance(operator, ast.Is | ast.IsNot) != is_none:
            raise self._wrong("None goes with 'is' and 'is not', and other values with ==")
        else:
            yield from self.columns(other)

    def _call(self, node: ast.Call) -> Iterator[str]:
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise self._foreign(node.func)
        name, arguments = node.func.id, list(node.args)
        takes = _FUNCTIONS.get(name)
        if takes is None:
            near = difflib.get_close_matches(name, _FUNCTIONS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {_names()}"
            raise self._wrong(f"there is no function {name!r}; {hint}")
        if len(arguments) != 1 + (" and " in takes):
            raise self._wrong(f"{name!r} takes one {takes}, not {len(arguments)} arguments")
        if takes.endswith("text"):
            last = arguments.pop()
            if not (isinstance(last, ast.Constant) and isinstance(last.value, str)):
                raise self._wrong(f"{name!r} needs a text in quotes")
            self._check_text(name, last.value)
            if name == "column":
                yield last.value
        for argument in arguments:
            yield from self.columns(argument)

    def _check_text(self, function: str, value: str) -> None:
        if function == "matches":
            check_pattern(value)
        if function in {"date", "moment"}:
            try:
                point_in_time(function, value)
            except ValueError:
                raise self._wrong(f"{value!r} is not a {function}; write ISO 8601") from None

    def _check_constant(self, value: object) -> None:
        if not isinstance(value, str | int | float | None):
            raise self._wrong(f"{value!r} is not a value of a column")
        if isinstance(value, int) and abs(value) >= _LARGEST:
            raise self._wrong("a number has more than 64 bits")

    def _foreign(self, node: ast.AST) -> InvalidRequest:
        return self._wrong(
            f"{ast.unparse(node)[:60]!r} is not of this language: write columns, values, "
            "comparisons, + - * / // %, and, or, not, in, is None, if-else, and the functions "
            f"{_names()}"
        )

    def _wrong(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"In {self.text[:200]!r}, {what}", parameter="expression")


def _names() -> str:
    return ", ".join(sorted(_FUNCTIONS))
