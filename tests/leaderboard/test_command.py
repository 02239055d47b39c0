"""``prunegraph bench``: its files, its table, and users' mistakes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.data.data_sets import write_librimix, write_manifests
from tests.plugin.test_entry_points import install

NETWORK = "small=tests.leaderboard.networks:separator"
QUICK = (
    "--seconds",
    0.5,
    "--batch",
    2,
    "--batches",
    1,
    "--compensation",
    1,
    "--steps",
    1,
    "--count",
    2,
    "--timing",
    0.02,
)
STRANGER = """
from prunegraph.plugin import hookimpl
from prunegraph_random import Random


@hookimpl
def prunegraph_criteria():
    return (Random(name="stranger"),)
"""


@pytest.fixture
def bench(run: Callable[..., Any], speakers: Path, tmp_path: Path) -> Callable[..., Any]:  # noqa: F811
    return lambda *options: run(
        "bench", NETWORK, "--output", tmp_path / "out", "--speakers", speakers, *QUICK, *options
    )


def test_the_files_hold_the_same_table(bench, tmp_path: Path) -> None:
    result = bench("--criteria", "random", "--seeds", 2, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(tmp_path / "out" / "results.parquet")
    assert list(written[0]) == table.column_names
    assert len(written) == table.num_rows == 1 + 2 * 2
    for row, ours in zip(table.to_pylist(), written, strict=True):
        assert {name: _text(value) for name, value in row.items()} == {
            n: _same(row[n], text) for n, text in ours.items()
        }
    assert (tmp_path / "out" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "mean over 2 seeds" in result.stdout
    assert next(line.split()[0] for line in result.stdout.splitlines() if " ± " in line) == "dense"
    again = bench("--criteria", "random", "--seeds", 2, "--device", "cpu", "--json")
    assert json.loads(again.stdout)["rows"] == table.to_pylist()


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _same(value: object, text: str) -> str:
    """Numbers may be spelt otherwise, as 1 for 1.0, but are the same bits."""
    return str(float(text)) if isinstance(value, float) else text


def test_an_installed_plug_in_shows_up(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "prunegraph_stranger", "stranger", STRANGER)
    monkeypatch.syspath_prepend(tmp_path / "site")
    few = ("--recoveries", "compensated", "--json", "--device", "cpu")
    rows = {row["criterion"]: row for row in json.loads(bench("--criteria", "stranger", *few).stdout)["rows"]}
    assert list(rows) == ["dense", "stranger", "random"]
    assert rows["stranger"]["si_sdri_compensated"] == rows["random"]["si_sdri_compensated"]
    asked: list[str] = []
    measure_none = lambda _, cells: iter([asked.append(cell.criterion) for cell in cells][:0])  # noqa: E731
    monkeypatch.setattr("prunegraph.cli.bench.run_here", measure_none)
    everything = bench(*few)
    assert {"fpgm", "l1", "l2", "sepprune", "taylor"} <= set(asked)
    assert not {"bn-scale", "dense", "stranger", "random"} & set(asked)
    assert "left out: bn-scale cannot serve small" in everything.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--criteria", "l11"), "no criterion is named 'l11'; did you mean 'l1'"),
        (("--criteria", "bn-scale"), "criterion 'bn-scale' cannot serve small: "),
        (("--macs", "0.5,half"), "--macs '0.5,half' cannot be read: could not convert string to float: 'half'"),
        (("--macs", "2"), "the budget 2.0 is no share of the MACs"),
        (("--recoveries", "tuned,prayer"), "'prayer' is none of compensated, tuned, both"),
        (("--corpus",), "give one of --speakers, --corpus, --librimix and --manifests"),
        (("--learning-rate", 0), "efforts must be positive"),
        (("--device", "abacus"), "--device abacus cannot be had"),
        (("small=tests.leaderboard.networks:flat",), "two networks are named 'small'"),
        (("tests.leaderboard.networks",), "'tests.leaderboard.networks' names no network; expected [NAME=]package"),
        (("a=b.py:c,weights=x.pt",), "expected [NAME=]package.module:factory[,checkpoint=FILE]"),
        (("other=tests.leaderboard.networks:separator,checkpoint=nowhere.pt",), "nowhere.pt"),
        (("tests.leaderboard.networks:stereo",), "stereo must take one mono signal"),
        (("--seconds", 60), "No pair of people has clips of 60.0 s or more"),
    ],
)
def test_a_mistake_is_one_line(bench, tmp_path: Path, options: tuple[object, ...], message: str) -> None:
    result = bench(*options)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert (result.exit_code, result.stdout) == (1, "")
    assert not (tmp_path / "out").exists()


def test_changed_settings_are_one_line(bench) -> None:
    few = ("--criteria", "random", "--recoveries", "compensated", "--device", "cpu")
    assert bench(*few).exit_code == 0
    result = bench(*few, "--count", 3)
    assert result.exit_code == 1
    assert "holds results under other conditions: mixtures was 2 and is 3 now" in result.stderr


def test_recorded_mixtures_serve_as_well(run: Callable[..., Any], tmp_path: Path) -> None:  # noqa: F811
    sources = {
        "--librimix": write_librimix(tmp_path / "libri"),
        "--manifests": write_manifests(tmp_path / "lists"),
    }
    for option, folder in sources.items():
        few = ("--criteria", "random", "--recoveries", "compensated", "--mixture", "mix_clean", "--device", "cpu")
        result = run("bench", NETWORK, "--output", tmp_path / option, option, folder, *QUICK, *few, "--json")
        assert result.exit_code == 0, result.output
        assert [row["criterion"] for row in json.loads(result.stdout)["rows"]] == ["dense", "random"]
