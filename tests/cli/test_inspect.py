"""``prunegraph inspect``."""

import json
import re
from pathlib import Path

import networkx as nx
import pytest
import torch

import prunegraph
from tests.cli.conftest import SEPARATOR
from tests.cli.networks import HardCoded, Separator

HARD = "tests.cli.networks:with_example"


def test_the_tables_show_costs_and_groups(run) -> None:
    result = run("inspect", *SEPARATOR)
    assert result.exit_code == 0
    for text in ("Separator:", "Stages", "Channel groups (2)", "encoder.weight[0]", "masker.0.weight[0]", "Locked (1)"):
        assert text in result.stdout
    assert "separating" not in result.stdout


def test_locked_groups_come_with_reason_file_and_line(run) -> None:
    result = run("inspect", HARD)
    code = Path(HardCoded.forward.__code__.co_filename).read_text().splitlines()
    line = next(number for number, text in enumerate(code, 1) if ".view(x.shape[0]" in text)
    assert "written in the code" in result.stdout
    assert f"tests/cli/networks.py:{line}" in result.stdout
    assert re.search(r"special_bessel_j0\S*\s+1\b", result.stdout)


def test_json_says_the_same_as_the_library(run) -> None:
    result = run("inspect", *SEPARATOR, "--json")
    document = json.loads(result.stdout)
    graph = prunegraph.build_graph(Separator(), torch.randn(1, 1, 200))
    assert document["cost"]["macs"] == graph.cost().macs
    assert document["cost"]["parameters"] == sum(p.numel() for p in Separator().parameters())
    assert {group["name"]: group["width"] for group in document["groups"]} == {g.name: g.width for g in graph.groups}
    assert sum(stage["macs"] for stage in document["cost"]["stages"]) == document["cost"]["macs"]
    assert "separating" in result.stderr


def test_the_share_of_a_group_is_what_its_removal_saves(run) -> None:
    groups = json.loads(run("inspect", *SEPARATOR, "--json").stdout)["groups"]
    graph = prunegraph.build_graph(Separator(), torch.randn(1, 1, 200))
    for group in groups:
        saved = 1 - graph.cost(graph.plan({group["name"]: [0]})).macs / graph.cost().macs
        assert group["macs_share"] == pytest.approx(saved, abs=1e-6)


def test_graphml_can_be_read_again(run, tmp_path) -> None:
    file = tmp_path / "graph.graphml"
    assert run("inspect", *SEPARATOR, "--graphml", file).exit_code == 0
    assert "group encoder.weight[0]" in nx.read_graphml(file)
    assert [path.name for path in tmp_path.iterdir()] == ["graph.graphml"]


def test_kwargs_reach_the_factory(run) -> None:
    document = json.loads(run("inspect", *SEPARATOR, "--json", "--kwargs", '{"width": 10}').stdout)
    assert {group["width"] for group in document["groups"]} == {10, 24}


def test_several_inputs_are_taken_in_their_order(run) -> None:
    result = run("inspect", "tests.cli.networks:TwoInputs", "--input-shape", "2,1,30", "--input-shape", "2,5", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["groups"][0]["width"] == 8


@pytest.mark.parametrize("target", ["tests.cli.networks:NETWORK", "tests.cli.networks:Separator"])
def test_a_class_and_a_network_serve_as_factories(run, target: str) -> None:
    assert run("inspect", target, *SEPARATOR[1:]).exit_code == 0


def test_a_file_serves_as_a_module(run, tmp_path) -> None:
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nfrom beside import WIDTH\n"
        "def net():\n    return nn.Sequential(nn.Conv1d(1, WIDTH, 3), nn.Conv1d(WIDTH, 1, 3))\n"
    )
    result = run("inspect", f"{tmp_path / 'mine.py'}:net", "--input-shape", "1,1,30", "--json")
    assert [group["width"] for group in json.loads(result.stdout)["groups"]] == [6]


def test_top_limits_the_rows_and_says_so(run) -> None:
    limited, whole = (run("inspect", *SEPARATOR, "--top", top).stdout for top in (1, 0))
    assert "1 more rows: --top 0 shows all" in limited
    assert "masker.2" not in limited
    assert "more rows" not in whole
    assert "masker.2" in whole


def test_pipes_get_no_colours_and_whole_names(run) -> None:
    result = run("inspect", *SEPARATOR)
    assert "\x1b[" not in result.stdout + result.stderr
    assert "…" not in result.stdout


def test_a_narrow_terminal_cuts_no_names(run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    result = run("inspect", *SEPARATOR)
    assert max(map(len, result.stdout.splitlines())) <= 44
    assert "…" not in result.stdout
