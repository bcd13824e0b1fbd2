"""What runs again and what does not: inputs, code, parameters, early cut-off, force, only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from infra.artifacts.gc import Policy

RAN = "succeeded"
ALL = ("raw", "clean", "count", "upper")


def test_second_run_does_nothing(either_bench: Any) -> None:
    bench = either_bench
    first = bench.run()
    assert [step.state for step in first.steps.values()] == [RAN] * 4
    assert bench.read("dataset/upper", "faq.txt") == "TWO WORDS\nTHREE MORE WORDS"
    assert first.steps["clean"].result == {"kept": 2}
    second = bench.run()
    assert [step.state for step in second.steps.values()] == ["cached"] * 4
    for name, step in first.steps.items():
        assert second.steps[name].outputs == step.outputs
        assert second.steps[name].result == step.result
    assert bench.versions("dataset/clean") == ["dataset/clean@v1"]


def test_edited_step_and_its_dependants_alone_run(bench: Any) -> None:
    bench.run()
    bench.write("upper.py", bench.root.joinpath("upper.py").read_text().replace("upper", "title"))
    assert bench.states() == {"raw": "cached", "clean": "cached", "count": "cached", "upper": RAN}
    assert bench.states({"minimum": "3"}) == {"raw": "cached"} | dict.fromkeys(ALL[1:], RAN)
    assert bench.read("dataset/upper", "faq.txt") == "Three More Words"


def test_step_that_reruns_to_the_same_bytes_cuts_the_rest_off(bench: Any) -> None:
    bench.run()
    source = bench.root.joinpath("steps.py").read_text()
    bench.write(
        "steps.py", source.replace("kept = [", "kept = list([").replace("minimum]", "minimum])")
    )
    assert bench.states() == {"raw": "cached", "clean": RAN, "count": "cached", "upper": "cached"}
    assert bench.versions("dataset/clean") == ["dataset/clean@v1"]


def test_input_that_changed_to_what_gives_the_same_output_cuts_the_rest_off(bench: Any) -> None:
    bench.run()
    bench.write("faq.txt", "another\ntwo words\nthree more words\n")
    states = bench.states()
    assert states == {"raw": RAN, "clean": RAN, "count": "cached", "upper": "cached"}
    assert len(bench.versions("dataset/raw")) == 2
    newest = bench.store.find("dataset/clean")
    (edge,) = bench.store.lineage("dataset/clean", depth=1).edges
    assert (edge.child, edge.role) == (newest.digest, "raw")
    assert edge.parent == bench.store.find("dataset/raw@v2").digest


def test_module_that_a_step_imports_is_part_of_its_code(bench: Any) -> None:
    bench.run()
    bench.write("wording.py", "def words(line):\n    return line.split('r')\n")
    forecast = bench.forecast()
    assert forecast["clean"].reason == "code wording.py changed"
    assert bench.states()["clean"] == RAN


def test_going_back_to_an_earlier_parameter_brings_its_output_back(bench: Any) -> None:
    first = bench.run().steps["clean"].outputs["clean"]
    second = bench.run({"minimum": "3"}).steps["clean"].outputs["clean"]
    assert second.reference == "dataset/clean@v2"
    third = bench.run()
    assert {step.state for step in third.steps.values()} == {"cached"}
    again = third.steps["clean"].outputs["clean"]
    assert (again.digest, again.reference) == (first.digest, "dataset/clean@v3")
    assert bench.store.find("dataset/clean").digest == first.digest


def test_what_the_collector_took_is_made_again(bench: Any) -> None:
    bench.run()
    bench.store.expire("dataset/upper@v1")
    now = Policy(grace=timedelta(0))
    bench.store.gc(now)
    assert bench.forecast()["upper"].reason == "output dataset/upper@v1 was collected"
    assert bench.states() == dict.fromkeys(ALL, "cached") | {"upper": RAN}


def test_force_runs_everything_and_makes_no_new_versions(bench: Any) -> None:
    bench.run()
    assert bench.states(force=True) == dict.fromkeys(ALL, RAN)
    assert bench.versions("dataset/upper") == ["dataset/upper@v1"]
    assert bench.states() == dict.fromkeys(ALL, "cached")


def test_only_runs_one_step_on_what_the_others_left(bench: Any) -> None:
    bench.run()
    bench.write("counting.py", bench.root.joinpath("counting.py").read_text() + "\n# edited\n")
    bench.write("upper.py", bench.root.joinpath("upper.py").read_text() + "\n# edited\n")
    assert bench.states(only=["count"]) == dict.fromkeys(ALL, "skipped") | {"count": RAN}
    assert bench.states() == dict.fromkeys(ALL, "cached") | {"upper": RAN}


def test_environment_counts_and_secrets_do_not(bench: Any) -> None:
    bench.write(
        "pipeline.yaml",
        """
        pipeline: variables
        steps:
          tell:
            run: ["sh", "-c", "env | sort > outputs/env/env.txt"]
            environment: [LANGUAGE_OF_FAQ]
            secrets: [ACCESS_TOKEN]
            outputs: {env: report/env}
        """,
    )
    bench.variables |= {"LANGUAGE_OF_FAQ": "en", "ACCESS_TOKEN": "a", "OTHER": "x"}
    assert bench.states() == {"tell": RAN}
    seen = bench.read("report/env", "env.txt")
    assert "LANGUAGE_OF_FAQ=en\n" in seen
    assert "ACCESS_TOKEN=a\n" in seen
    assert "OTHER" not in seen
    bench.variables["ACCESS_TOKEN"] = "b"
    assert bench.states() == {"tell": "cached"}
    bench.variables["LANGUAGE_OF_FAQ"] = "de"
    assert bench.forecast()["tell"].reason == "variable LANGUAGE_OF_FAQ changed"
    assert "en" not in str(bench.runs.last("variables", "tell").parts["environment"])


def test_forecast_says_what_would_run_and_why(bench: Any) -> None:
    assert {each.reason for each in bench.forecast().values()} == {
        "has not run before",
    }
    bench.run()
    assert {each.action for each in bench.forecast().values()} == {"cached"}
    bench.write("faq.txt", "four words it has\n")
    found = bench.forecast()
    assert (found["raw"].action, found["raw"].reason) == ("run", "input ./faq.txt changed")
    assert (found["clean"].action, found["clean"].reason) == (
        "perhaps",
        "if step raw changes dataset/raw",
    )
    changed = bench.forecast({"minimum": "5"})["clean"]
    assert (changed.action, changed.reason) == ("run", "argument minimum changed 2 -> 5")
    assert len(bench.runs.list()) == 1, "a forecast must write nothing"


def test_forecast_names_the_versions_of_an_input(bench: Any) -> None:
    for text in ("one", "two"):
        bench.write("data/faq.txt", text)
        bench.store.put(bench.root / "data", "dataset/stored")
    bench.write(
        "pipeline.yaml",
        """
        pipeline: stored
        steps:
          copy:
            run: cp inputs/stored/faq.txt outputs/copy
            inputs: {stored: dataset/stored@production}
            outputs: {copy: dataset/copy}
        """,
    )
    bench.store.tag("dataset/stored@v1", "production")
    assert bench.states() == {"copy": RAN}
    bench.store.tag("dataset/stored@v2", "production")
    assert bench.forecast()["copy"].reason == "input dataset/stored changed v1 -> v2"
    assert bench.run().steps["copy"].inputs == {"stored": "dataset/stored@v2"}
