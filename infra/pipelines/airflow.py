"""Writes a pipeline as an Airflow 3 DAG whose tasks call `ragstone pipeline step`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.errors import InvalidRequest
from infra.pipelines.definition import Pipeline
from infra.pipelines.graph import Graph

_HEAD = '''\
"""{title}

Written by `ragstone pipeline export`; write it again rather than edit it. Every task is safe to run
again: a step that has succeeded in this DAG run, or whose inputs did not change, does nothing.
"""

from datetime import datetime, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

PIPELINE = {file}
FOLDER = {folder}
"""Where `ragstone` finds its settings."""
STEPS = {steps}
"""By step, those that it comes after."""
PARAMS = {params}
ENVIRONMENT = {environment}
COMMAND = {command}

with DAG(
    dag_id={name},
    description={description},
    schedule={schedule},
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    tags=["ragstone"],
) as dag:
    tasks = {{
        step: BashOperator(
            task_id=step,
            bash_command=COMMAND,
            cwd=FOLDER,
            env={{**ENVIRONMENT, "PIPELINE_STEP": step}},
            append_env=True,
            do_xcom_push=False,
            retries=1,
        )
        for step in STEPS
    }}
    for step, before in STEPS.items():
        for each in before:
            tasks[each] >> tasks[step]
'''


def dag(
    pipeline: Pipeline, graph: Graph, *, file: Path, folder: Path, schedule: str | None = None
) -> str:
    """Return the text of a DAG file.

    Args:
        pipeline: with its default parameters.
        graph: of its steps.
        file: the pipeline file, where the tasks will find it.
        folder: the working folder of the tasks, with the settings.
        schedule: a cron expression; none leaves it to be started by hand.

    Raises:
        InvalidRequest: a parameter cannot be handed on by Airflow.
    """
    location = str(file.absolute())
    if any(mark in f"{location}{folder.absolute()}" for mark in ("{{", "{%", "{#")):
        raise InvalidRequest(f"{location!r} would be taken for a template; rename the folder")
    environment = {
        "PIPELINE_FILE": location,
        "PIPELINE_RUN": "{{ run_id }}",
    }
    # Values reach the command through its environment: nothing in them can act on the shell.
    words = ["exec ragstone pipeline step", '"$PIPELINE_FILE" "$PIPELINE_STEP"']
    words.append('--run "$PIPELINE_RUN"')
    given = {name: value for name, value in pipeline.params.items() if value is not None}
    for number, (name, value) in enumerate(given.items()):
        form = "" if isinstance(value, str) else " | tojson"
        environment[f"PIPELINE_PARAM_{number}"] = f"{{{{ params[{json.dumps(name)}]{form} }}}}"
        words.append(f'--param "{name}=$PIPELINE_PARAM_{number}"')
    return _HEAD.format(
        title=f"Pipeline {pipeline.name}, as a DAG.",
        file=_literal(location),
        folder=_literal(str(folder.absolute())),
        steps=_literal({name: list(graph.needs[name]) for name in graph.order}),
        params=_literal(given),
        environment=_literal(environment).replace(_literal(location), "PIPELINE", 1),
        command=_literal(" ".join(words)),
        name=_literal(pipeline.name),
        description=_literal(pipeline.description),
        schedule=_literal(schedule),
    )


def _literal(value: Any) -> str:
    """Return a Python literal, a line for each entry of a mapping."""
    if isinstance(value, dict) and value:
        lines = "".join(f"    {each!r}: {item!r},\n" for each, item in value.items())
        return f"{{\n{lines}}}"
    return repr(value)
