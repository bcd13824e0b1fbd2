"""Options of monitors: detectors, corrections and receivers, and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from infra.errors import InvalidConfiguration
from monitoring.references import pin
from monitoring.windows import Window
from service.cli.entry import app
from service.cli.watch import FAILED_SECONDS, POLL_SECONDS, go_on
from service.wiring import Components
from service.work import monitors

MAIL = {"host": "a", "sender": "b", "recipients": ["c"]}


def watching(fast_settings: Any, **monitor: Any) -> Components:
    """Return components with one monitor."""
    asked = {"reference": "answers", **monitor}
    return Components(fast_settings(watch={"monitors": {"answers": asked}}))


def test_detectors_are_named_alone_or_with_their_parameters(fast_settings: Any) -> None:
    far = {"detector": "wasserstein", "parameters": {"least_effect": 0.5, "draws": 999}}
    parts = watching(
        fast_settings,
        detectors={"seconds": far, "support": "psi"},
        together={"detector": "mmd", "parameters": {"rows": 200}},
        streams={"groundedness": "adwin"},
        correction="holm",
    )
    plan = monitors.opened(parts, "answers")[0].plan
    assert {name: (each.name, each.parameters) for name, each in plan.by_column.items()} == {  # type: ignore[union-attr]
        "seconds": ("wasserstein", {"least_effect": 0.5, "draws": 999}),
        "support": ("psi", {}),
    }
    assert plan.together.parameters == {"rows": 200}  # type: ignore[union-attr]
    assert plan.correction == "holm"
    assert monitors.opened(parts, "answers")[0].streams[0].detector == "adwin"
    parts.close()


@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        (
            {"detectors": {"a": {"detector": "psi", "parameters": {"threshold": 0.2}}}},
            "detectors.a: Detector 'psi': no option 'threshold'; there are cells, draws, "
            "least_effect, least_rows, level, seed",
        ),
        (
            {"detectors": {"a": {"detector": "psi", "parameters": {"draws": 9}}}},
            "detectors.a: Detector 'psi': draws: Input should be greater than or equal to 99, "
            "not 9",
        ),
        (
            {"detectors": {"a": {"detector": "psi", "parameters": {"level": 0.01}}}},
            "detectors.a: all tests of a window share one level; set watch.monitors.answers.level",
        ),
        ({"detectors": {"a": "adwin"}}, "detectors.a: 'adwin' watches streams; choose another"),
        ({"together": "ddm"}, "together: No plug-in 'ddm' in monitoring.drift; there are adwin, "),
        ({"together": "psi"}, "together: 'psi' reads no vectors"),
        ({"streams": {"a": "psi"}}, "streams.a: 'psi' compares windows; choose another"),
        (
            {"streams": {"a": {"parameters": {"delta": 0.1}}}},
            "streams.a: Detector 'e_detector': no option 'delta'; there are horizon, least_rows, ",
        ),
    ],
)
def test_a_wrong_option_of_a_detector_is_told_in_a_line_with_those_there_are(
    fast_settings: Any, monitor: dict[str, Any], said: str
) -> None:
    parts = watching(fast_settings, **monitor)
    with pytest.raises(InvalidConfiguration) as error:
        monitors.check(parts)
    assert error.value.message.startswith(f"watch.monitors.answers.{said}")
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("receiver", "said"),
    [
        ({"webhook": {"uri": "http://127.0.0.1:9"}}, "webhook: url: Field required"),
        (
            {"webhook": {"url": "http://127.0.0.1:9", "header": {}}},
            "webhook: no option 'header'; there are headers, url",
        ),
        ({"email": {"host": "a", "sender": "b", "recipients": []}}, "email: recipients: "),
        (
            {"email": {**MAIL, "password": 271828}},
            "email: password: Input should be a valid string",
        ),
    ],
)
def test_a_wrong_option_of_a_receiver_is_told_before_there_is_anything_to_tell(
    fast_settings: Any, receiver: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidConfiguration) as error:
        monitors.check(Components(fast_settings(watch={"receivers": receiver})))
    assert error.value.message.startswith(f"watch.receivers.{said}")
    assert "271828" not in error.value.message


def test_the_service_does_not_start_with_them_and_the_doctor_names_them(
    fast_settings: Any, open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = watching(fast_settings, detectors={"seconds": "psy"})
    with pytest.raises(InvalidConfiguration, match="No plug-in 'psy'"):
        open_client(parts.settings)
    monkeypatch.setenv("RAGSTONE_WATCH", parts.settings.watch.model_dump_json())
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(parts.settings.data_folder))
    examined = CliRunner().invoke(app, ["doctor"])
    assert "fail  watch: watch.monitors.answers.detectors.seconds: No plug-in" in examined.stdout
    watched = CliRunner().invoke(app, ["watch", "--once"])
    assert watched.exit_code != 0
    assert "No plug-in 'psy'" in watched.stderr


def test_a_watch_goes_on_where_a_look_fails(
    fast_settings: Any, open_components: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = fast_settings(watch={"monitors": {"answers": {"reference": "answers"}}})
    parts: Components = open_components(settings)
    assert go_on(parts, json=True) == FAILED_SECONDS
    told = capsys.readouterr()
    assert "answers" in told.err
    assert told.err.endswith("; the watch goes on\n")
    pin(parts.artifacts, "answers", Window.of({"seconds": [1.0, 2.0]}))
    assert go_on(parts, json=True) == POLL_SECONDS
    assert '"monitor": "answers"' in capsys.readouterr().out
    assert go_on(parts, json=True) == POLL_SECONDS
    assert capsys.readouterr().out == "", "nothing is due"
