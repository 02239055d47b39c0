"""The comparison of measured ratios with saved ones, on records made up by hand."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import regressions


def run(group: str, name: str, seconds: float, **figures: float) -> dict[str, Any]:
    return {"group": group, "name": name, "stats": {"min": seconds}, "extra_info": figures}


def record(analysis: float, *, forward: float = 2.0, last: float = 9.0, step: float = 1.1) -> dict[str, Any]:
    return {
        "benchmarks": [
            run("Net", "test_forward[Net]", forward),
            run("Net", "test_analysis[Net]", analysis),
            run("curve: depth", "test_curve_of_plan[depth: 1]", 3.0),
            run("curve: depth", "test_curve_of_plan[depth: 4]", last),
            run("mask step, cpu", "test_mask_step[1-cpu]", 1.0, **{"ratio to a training step": step}),
        ]
    }


def values(measured: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, (value, _) in regressions.ratios(measured).items()}


def test_ratios_are_taken_within_the_run() -> None:
    assert values(record(1.0)) == {
        "Net, analysis": 0.5,
        "curve: depth, curve_of_plan, depth: 1": 1.0,
        "curve: depth, curve_of_plan, depth: 4": 3.0,
        "mask step, cpu: ratio to a training step": 1.1,
    }


def test_a_slower_machine_is_no_regression() -> None:
    assert regressions.regressions(regressions.ratios(record(10.0, forward=20.0)), values(record(1.0))) == []


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (record(1.3), "Net, analysis: 0.65, was 0.50"),
        (record(1.0, last=12.0), "curve: depth, curve_of_plan, depth: 4: 4.00, was 3.00"),
        (record(1.0, step=1.4), "mask step, cpu: ratio to a training step: 1.40, was 1.10"),
    ],
)
def test_a_ratio_more_than_a_quarter_worse_is_named(now: dict[str, Any], line: str) -> None:
    assert regressions.regressions(regressions.ratios(now), values(record(1.0))) == [line]


def test_a_ratio_a_little_worse_is_let_pass() -> None:
    assert regressions.regressions(regressions.ratios(record(1.24, last=11.0)), values(record(1.0))) == []


@pytest.mark.parametrize(("seconds", "code"), [(1.0, 0), (1.5, 1)])
def test_the_command_fails_on_a_regression(
    seconds: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressions, "SAVED", tmp_path / "ratios.json")
    for name, measured in (("before.json", record(1.0)), ("now.json", record(seconds))):
        (tmp_path / name).write_text(json.dumps(measured))
    monkeypatch.setattr(sys, "argv", ["regressions", str(tmp_path / "before.json"), "--save"])
    regressions.main()
    monkeypatch.setattr(sys, "argv", ["regressions", str(tmp_path / "now.json")])
    with pytest.raises(SystemExit) as stopped:
        regressions.main()
    assert stopped.value.code == code
