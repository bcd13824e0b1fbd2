"""Turns a parsed expression into one of polars, which computes it for every row at once."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import polars as pl
from polars import selectors

from infra.expectations.expression import Expression, point_in_time

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: lambda a: ~a,
    ast.USub: lambda a: -a,
    ast.UAdd: lambda a: a,
}
_FUNCTIONS: Mapping[str, Callable[..., pl.Expr]] = {
    "abs": lambda a: a.abs(),
    "length": lambda a: a.str.len_chars(),
    "lower": lambda a: a.str.to_lowercase(),
    "upper": lambda a: a.str.to_uppercase(),
    "strip": lambda a: a.str.strip_chars(),
    "starts_with": lambda a, text: a.str.starts_with(text),
    "ends_with": lambda a, text: a.str.ends_with(text),
    "contains": lambda a, text: a.str.contains(text, literal=True),
    "matches": lambda a, text: a.str.contains(text),
    "is_missing": lambda a: a.is_null(),
    "year": lambda a: a.dt.year(),
    "month": lambda a: a.dt.month(),
    "day": lambda a: a.dt.day(),
    "weekday": lambda a: a.dt.weekday(),
}


def compile_expression(expression: Expression) -> pl.Expr:
    """Return what the expression says of each row; null where a value it needs is missing."""
    return _compile(expression.tree)


def column(name: str) -> pl.Expr:
    """Return the column of exactly that name; `pl.col` would take '*' and '^a$' for patterns."""
    return selectors.by_name(name).as_expr()


def _compile(node: ast.expr) -> pl.Expr:
    match node:
        case ast.Name(id=name):
            return column(name)
        case ast.Constant(value=value):
            return pl.lit(value)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _call(name, arguments)
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _compare(left, ops, others)
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_compile(left), _compile(right))  # type: ignore[no-any-return]
        case ast.BoolOp(op=op, values=values):
            parts = [_compile(value) for value in values]
            return reduce(lambda a, b: a & b if isinstance(op, ast.And) else a | b, parts)
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_compile(operand))  # type: ignore[no-any-return]
        case ast.IfExp(test=test, body=body, orelse=other):
            return pl.when(_compile(test)).then(_compile(body)).otherwise(_compile(other))
    raise AssertionError(f"{type(node).__name__} is not of the language")


def _call(name: str, arguments: list[ast.expr]) -> pl.Expr:
    text = arguments[-1].value if isinstance(arguments[-1], ast.Constant) else None
    if name == "column":
        return column(str(text))
    if name in {"date", "moment"}:
        point = point_in_time(name, str(text))
        if isinstance(point, datetime) and point.tzinfo is not None:
            point = point.astimezone(UTC)
        return pl.lit(point)
    first, *rest = arguments
    return _FUNCTIONS[name](_compile(first), *([text] if rest else []))


def _compare(left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr]) -> pl.Expr:
    parts, value = [], _compile(left)
    for operator, other in zip(ops, others, strict=True):
        following = value
        if isinstance(operator, ast.Is | ast.IsNot):
            part = value.is_null()
        elif isinstance(other, ast.List | ast.Tuple | ast.Set):
            part = _contained(value, [_compile(item) for item in other.elts])
        else:
            following = _compile(other)
            part = _COMPARISONS[type(operator)](value, following)
        parts.append(~part if isinstance(operator, ast.IsNot | ast.NotIn) else part)
        value = following
    return reduce(lambda a, b: a & b, parts)


def _contained(value: pl.Expr, items: list[pl.Expr]) -> pl.Expr:
    if not items:
        return pl.when(value.is_not_null()).then(pl.lit(value=False))
    return reduce(lambda a, b: a | b, [value == item for item in items])
