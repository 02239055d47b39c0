"""``prunegraph profile`` and ``prunegraph prune --latency-ms``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prunegraph import LatencyProfile
from prunegraph.cli import app
from prunegraph.profiling import rounding, whole
from tests.latency.clocks import Clockwork

NETWORK = ("tests.latency.networks:separator",)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Runs a command, all times taken by the clockwork."""
    for module in (whole, rounding):
        monkeypatch.setattr(module, "DeviceStopwatch", lambda device, **options: Clockwork())
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def table(timings: LatencyProfile, tmp_path: Path) -> Path:
    timings.save(tmp_path / "table.json")
    return tmp_path / "table.json"


def test_the_tables_are_shown_and_saved(run, tmp_path: Path) -> None:
    result = run("profile", *NETWORK, "--sample-rate", 8000, "--seconds", 0.001, "--output", tmp_path / "table.json")
    assert result.exit_code == 0, result.stderr
    assert "Latency on a clockwork, 3 threads, torch 2.0" in result.stdout
    assert "Rounding: aten.conv1d.default of wide" in result.stdout
    assert LatencyProfile.load(tmp_path / "table.json").seconds == 0.05


def test_json_holds_both_tables(run) -> None:
    found = json.loads(run("profile", *NETWORK, "--seconds", 0.001, "--json").stdout)
    assert [row["round_to"] for row in found["rounding"]["widths"]] == [1, 2, 4, 8, 16, 32]
    assert found["profile"]["scale"] == pytest.approx(1.5)
    assert found["saved_to"] is None


@pytest.mark.parametrize("option", ["--latency-ms", "--rtf"])
def test_prune_meets_a_budget_by_the_table(run, table: Path, option: str) -> None:
    dense = LatencyProfile.load(table).widths[0].median
    limit = 600 * dense if option == "--latency-ms" else 0.6 * dense / 0.05
    result = run("prune", *NETWORK, option, limit, "--profile", table, "--json")
    assert result.exit_code == 0, result.stderr
    latency = json.loads(result.stdout)["latency"]
    assert latency["dense"] == pytest.approx(dense)
    assert 0.58 * dense < latency["pruned"] <= 0.6 * dense * (1 + 1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency-ms", 1], "needs a profile of the device"),
        (["--latency-ms", 0.001, "--profile", "{table}"], "latency_ms=0.001 cannot be met"),
        (["--latency-ms", -1, "--profile", "{table}"], "latency_ms=-1.0 is out of range"),
        (["--latency-ms", 1, "--profile", "nowhere.json"], "nowhere.json: No such file"),
        (["--latency-ms", 1, "--profile", "{damaged}"], "this is no latency profile"),
        (["--latency-ms", 1, "--profile", "{table}", "--input-shape", "1,1,800"], "for inputs of another shape"),
    ],
    ids=["no-table", "infeasible", "negative", "missing", "damaged", "other-length"],
)
def test_mistakes_of_prune(run, table: Path, tmp_path: Path, arguments: list, message: str) -> None:
    (tmp_path / "damaged.json").write_text("{")
    places = {"{table}": table, "{damaged}": tmp_path / "damaged.json"}
    result = run("prune", *NETWORK, *(places.get(argument, argument) for argument in arguments))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "abacus"], "'abacus' is no device"),
        (["--device", "meta"], "there is no device meta on this machine"),
        (["--seconds", 0], "must be positive"),
        (["--output", "nowhere/table.json"], "there is no directory nowhere"),
        (["--output", "pyproject.toml"], "pyproject.toml exists already; give another --output, or --force"),
        (["--cuda-graphs"], "need the network and its example inputs on a GPU"),
    ],
    ids=["device", "meta", "seconds", "folder", "existing", "cuda-graphs"],
)
def test_mistakes_of_profile(run, arguments: list, message: str) -> None:
    result = run("profile", *NETWORK, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
