"""What a pipeline file may say, and how what is wrong with it is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidRequest, NotFound, RagstoneError, TooLarge
from infra.pipelines import definition, graph
from infra.pipelines.drawing import dot, mermaid, rails
from infra.pipelines.parameters import fill, overridden, put_places
from infra.pipelines.reading import MAX_BYTES, parse_yaml, read_yaml

STEP = "{run: 'true'}"


def load(document: str, **given_params: str) -> definition.Pipeline:
    pipeline = definition.parse(parse_yaml(document), given_params)
    graph.build(pipeline)
    return pipeline


def steps(**bodies: str) -> str:
    lines = "".join(f"  {name}: {body}\n" for name, body in bodies.items())
    params = "{rows: 20, rate: 0.5, text: 'a b', on: true, list: [1]}"
    return f"pipeline: p\nparams: {params}\nsteps:\n{lines}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{run: x, outptus: {}}", "outptus: unknown key; did you mean 'outputs'?"),
        ("{run: x, resources: {gpus: 1}}", "gpus: unknown key; did you mean 'gpu'?"),
        ("{run: x, timeout: 10 minutes}", "'10 minutes' is not a number with one of s, min, h, d"),
        ("{run: x, python: 'a:b'}", "needs either `run`"),
        ("{}", "needs either `run`"),
        ("{python: steps.clean}", "not of the form 'module:function'"),
        ("{run: x, with: {a: 1}}", "`with` is for `python`"),
        ("{python: 'a:b', with: {x: 1}, inputs: {x: dataset/x}}", "'x' is used twice"),
        ("{python: 'a:b', inputs: {x-y: dataset/x}}", "'x-y' cannot be an argument"),
        ("{run: x, inputs: {x: Dataset}}", "'Dataset' is not a name such as 'dataset/faq'"),
        ("{run: x, outputs: {x: dataset/x@v1}}", "'dataset/x@v1' is not a name"),
        ("{run: x, outputs: {x: {artifact: a/b, path: ../up}}}", "'../up' is not a relative path"),
        ("{run: x, outputs: {x: {artifact: a/b, path: inputs/x}}}", "is where inputs lie"),
        ("{run: x, outputs: {x: a/b, y: {artifact: a/c, path: outputs/x/y}}}", "two of them lie"),
        ("{run: x, inputs: {x: ./../secret}}", "is not a relative path"),
        ("{run: x, code: [/etc/passwd]}", "is not a relative path"),
        ("{run: x, after: [s9]}", "no step 's9'; did you mean 's'?"),
        ("{run: 'x ${params.row}'}", "did you mean 'params.rows'?"),
        ("{run: 'x ${inputs.x}'}", "'${inputs.x}' is not declared by the step"),
        ("{run: x, timeout: '${inputs.x}'}", "known in `run` and `with` alone"),
        ("{run: 'x ${params.list}'}", "does not fit into text"),
        ('{run: "it\'s"}', "No closing quotation"),
        ("{run: x, environment: ['A=1']}", "'A=1' is not the name of a variable"),
        ("{run: x, retries: -1}", "greater than or equal to 0"),
        ("7", "valid dictionary or instance of Step"),
    ],
)
def test_wrong_step_is_refused_by_name(body: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load(steps(s=body))
    assert message in caught.value.message


def test_circle_is_named_as_a_path() -> None:
    text = steps(
        a="{run: x, inputs: {i: data/c}, outputs: {o: data/a}}",
        b="{run: x, inputs: {i: data/a}, outputs: {o: data/b}}",
        c="{run: x, after: [b], outputs: {o: data/c}}",
    )
    with pytest.raises(InvalidRequest) as caught:
        load(text)
    path = caught.value.message.split("steps: ")[1].split(" is a circle")[0].split(" -> ")
    assert path[0] == path[-1]
    assert set(path) == {"a", "b", "c"}
    with pytest.raises(InvalidRequest, match="s -> s is a circle"):
        load(steps(s="{run: x, after: [s]}"))


def test_two_makers_of_one_artifact_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="made by step 'a' already"):
        load(steps(a="{run: x, outputs: {o: data/x}}", b="{run: x, outputs: {o: data/x}}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: [*x, *x]", "line 1: anchors and aliases"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag"),
        ("a: !local 1", "line 1: the tag '!local'"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("? [1]\n: 2", "line 1: a key must be text"),
        ("a: [1", "not YAML"),
        ("\ta: 1", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_yaml_beyond_data_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_yaml(text)
    assert message in caught.value.message


def test_bombs_are_refused_before_they_are_built(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="20 levels"):
        parse_yaml("[" * 500_000)
    with pytest.raises(TooLarge, match="values"):
        parse_yaml("[" + "1," * 50_000 + "]")
    (tmp_path / "big.yaml").write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(TooLarge, match="larger than"):
        read_yaml(tmp_path / "big.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(NotFound, match="did you mean"):
        read_yaml(tmp_path / "latim.yaml")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = parse_yaml(text)
    except InvalidRequest:
        return
    try:
        definition.parse(document, {})
    except RagstoneError:
        return


def test_words_that_yaml_once_took_for_something_else_stay_words() -> None:
    found = parse_yaml("[no, on, 01, 1:30, 0x10, 1_000, .5, 1e3, 2001-01-01]")
    assert found == ["no", "on", "01", "1:30", "0x10", "1_000", 0.5, 1000.0, "2001-01-01"]


def test_parameters_keep_their_type_and_stay_one_argument() -> None:
    text = steps(s="{run: 'x ${params.text} ${params.rows}', timeout: '${params.rows}'}")
    step = load(text, text="c $$ ${inputs.x} d").steps["s"]
    words = put_places(list(step.run), {}, where="s")
    assert words == ["x", "c $$ ${inputs.x} d", "20"], "a value is never searched for placeholders"
    assert step.timeout == 20


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [("rows", "30", 30), ("rate", "1", 1.0), ("on", "false", False), ("text", "7", "7")],
)
def test_override_gets_the_type_of_the_default(name: str, value: str, result: Any) -> None:
    found = load(steps(s=STEP), **{name: value}).params[name]
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(("name", "value"), [("rows", "many"), ("on", "1"), ("list", "{}")])
def test_override_of_another_type_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Parameter '{name}' is"):
        load(steps(s=STEP), **{name: value})
    with pytest.raises(InvalidRequest, match="did you mean 'rows'"):
        load(steps(s=STEP), row="1")


@given(st.text(max_size=60))
def test_filled_in_value_arrives_as_it_is(value: str) -> None:
    params = overridden({"x": "default"}, {"x": value})
    words = fill(["a ${params.x} b", "${params.x}"], params, where="w", keep_places=True)
    assert put_places(words, {}, where="w") == [f"a {value} b", value]


def test_graph_is_drawn_for_the_terminal_mermaid_and_graphviz() -> None:
    pipeline = load(
        steps(
            raw="{run: x, outputs: {o: data/raw}}",
            check="{run: x, inputs: {i: data/raw}}",
            stats="{run: x, inputs: {i: data/raw}, outputs: {o: data/stats}}",
            clean="{run: x, inputs: {i: data/raw, s: data/stats}, after: [check]}",
        )
    )
    found = graph.build(pipeline)
    assert found.order == ("raw", "check", "stats", "clean")
    assert found.dependants("check") == {"clean"}
    assert "\n".join(rails(found)) == ("●  raw\n├─┬─╮\n● │ │  check\n│ ● │  stats\n├─┴─╯\n●  clean")
    chart = mermaid(pipeline, found)
    assert 's0 -- "data/raw" --> s1' in chart
    assert "s1 -.-> s3" in chart
    assert '"raw" -> "clean" [label="data/raw"];' in dot(pipeline, found)


@settings(max_examples=40)
@given(st.data())
def test_order_and_drawing_hold_for_any_graph(data: st.DataObject) -> None:
    names = [f"s{number}" for number in range(data.draw(st.integers(1, 12)))]
    after = {
        name: data.draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=4))
        for number, name in enumerate(names)
        if number
    }
    bodies = {name: f"{{run: x, after: {after.get(name, [])}}}" for name in names}
    shuffled = data.draw(st.permutations(names))
    found = graph.build(load(steps(**{name: bodies[name] for name in shuffled})))
    place = {name: number for number, name in enumerate(found.order)}
    assert sorted(place) == sorted(names)
    assert all(place[before] < place[name] for name in names for before in after.get(name, []))
    lines = rails(found)
    nodes = [line.split()[-1] for line in lines if "●" in line]
    assert nodes == list(found.order)
    ends = "".join(lines)
    joins = sum(max(0, len(set(after.get(name, []))) - 1) for name in names)
    assert ends.count("╯") + ends.count("┴") == joins
