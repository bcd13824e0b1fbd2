"""Draws the steps of a pipeline: rails for the terminal, Mermaid, Graphviz."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infra.pipelines.definition import Pipeline
from infra.pipelines.graph import Graph

NODE = "●"


def rails(graph: Graph, *, describe: Callable[[str], str] = str) -> list[str]:
    """Return lines for a terminal: a step on each, joined to those it needs above it.

    >>> from infra.pipelines.graph import Graph
    >>> needs = {"raw": (), "check": ("raw",), "clean": ("raw", "check")}
    >>> for line in rails(Graph(tuple(needs), {}, {}, needs)):
    ...     print(line)
    ●  raw
    ├─╮
    ● │  check
    ├─╯
    ●  clean
    """
    return _Rails(graph).draw(describe)


class _Rails:
    """Columns that each lead down to one step; `None` where a column is free."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._columns: list[str | None] = []
        self._children: Mapping[str, list[str]] = {
            name: [other for other in graph.order if name in graph.needs[other]]
            for name in graph.order
        }

    def draw(self, describe: Callable[[str], str]) -> list[str]:
        lines: list[str] = []
        for name in self._graph.order:
            column = self._arrive(name, lines)
            cells = ["│" if each else " " for each in self._columns]
            cells[column] = NODE
            lines.append(f"{' '.join(cells).rstrip()}  {describe(name)}")
            self._leave(name, column, lines)
        return lines

    def _arrive(self, name: str, lines: list[str]) -> int:
        """Join the columns that lead to a step; returns the one that is left."""
        mine = [number for number, each in enumerate(self._columns) if each == name]
        if not mine:
            return self._free(name)
        if len(mine) > 1:
            lines.append(self._across(mine, ends="╯", inner="┴"))
            for number in mine[1:]:
                self._columns[number] = None
        return mine[0]

    def _leave(self, name: str, column: int, lines: list[str]) -> None:
        children = self._children[name]
        self._columns[column] = children[0] if children else None
        used = [column]
        for child in children[1:]:
            used.append(self._free(child, after=column))
        if len(used) > 1:
            lines.append(self._across(used, ends="╮", inner="┬"))
        while self._columns and self._columns[-1] is None:
            self._columns.pop()

    def _free(self, name: str, *, after: int = -1) -> int:
        for number in range(after + 1, len(self._columns)):
            if self._columns[number] is None:
                self._columns[number] = name
                return number
        self._columns.append(name)
        return len(self._columns) - 1

    def _across(self, numbers: list[int], *, ends: str, inner: str) -> str:
        first, last = numbers[0], numbers[-1]
        line = ""
        for number, each in enumerate(self._columns):
            within = first < number < last
            if number == first:
                cell = "├"
            elif number == last:
                cell = ends
            elif number in numbers:
                cell = inner
            else:
                cell = ("┼" if within else "│") if each else ("─" if within else " ")
            line += cell + ("─" if first <= number < last else " ")
        return line.rstrip()


def mermaid(pipeline: Pipeline, graph: Graph) -> str:
    """Return a flow chart in Mermaid; artifacts stand on the arrows."""
    numbers = {name: f"s{number}" for number, name in enumerate(graph.order)}
    lines = ["flowchart TD"]
    lines += [f'    {numbers[name]}["{name}"]' for name in graph.order]
    for before, after, label in _arrows(pipeline, graph):
        arrow = f'-- "{label}" -->' if label else "-.->"
        lines.append(f"    {numbers[before]} {arrow} {numbers[after]}")
    return "\n".join(lines)


def dot(pipeline: Pipeline, graph: Graph) -> str:
    """Return a graph in the language of Graphviz; artifacts stand on the arrows."""
    lines = [f'digraph "{pipeline.name}" {{', "    node [shape=box];"]
    lines += [f'    "{name}";' for name in graph.order]
    for before, after, label in _arrows(pipeline, graph):
        style = f'label="{label}"' if label else "style=dashed"
        lines.append(f'    "{before}" -> "{after}" [{style}];')
    return "\n".join([*lines, "}"])


def _arrows(pipeline: Pipeline, graph: Graph) -> list[tuple[str, str, str]]:
    """Return (step, later step, artifacts that pass between them or nothing)."""
    arrows = []
    for name in graph.order:
        for before in graph.needs[name]:
            made = {output.artifact for output in pipeline.steps[before].outputs.values()}
            passed = sorted(set(graph.sources[name].values()) & made)
            arrows.append((before, name, ", ".join(passed)))
    return arrows
