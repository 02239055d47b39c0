"""Tables outlive the process, and those of something else are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunegraph import Budget, FileFormatError, InputError, LatencyProfile, build_graph, score, select
from prunegraph.latency import LatencyModel, fingerprint
from tests.latency.clocks import TARGET
from tests.latency.networks import Separator, attending


def test_a_table_comes_back_as_it_was(timings: LatencyProfile, tmp_path: Path) -> None:
    timings.save(tmp_path / "table.json")
    assert LatencyProfile.load(tmp_path / "table.json") == timings
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


def changed(text: str, **fields: object) -> str:
    return json.dumps({**json.loads(text), **fields})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:100], "this is no latency profile"),
        (lambda text: "[]", "this is no latency profile"),
        (lambda text: changed(text, schema_version=99), "schema version 99"),
        (lambda text: changed(text, scale=-1), "negative or not finite"),
        (lambda text: changed(text, base=float("nan")), "negative or not finite"),
        (lambda text: changed(text, more=1), "unexpected keyword"),
        (lambda text: changed(text, ops=[{"node": "a"}]), "missing"),
    ],
    ids=["cut", "list", "version", "negative", "nan", "field", "op"],
)
def test_damaged_tables_are_refused(timings: LatencyProfile, tmp_path: Path, damage, message: str) -> None:
    (tmp_path / "table.json").write_text(damage(timings.to_json()))
    with pytest.raises(FileFormatError, match=message) as caught:
        LatencyProfile.load(tmp_path / "table.json")
    assert "table.json" in str(caught.value)


def test_binary_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="make it anew"):
        LatencyProfile.load(tmp_path / "table.json")


@pytest.mark.parametrize("other", ["network", "length"])
def test_a_table_of_something_else_is_refused(timings: LatencyProfile, other: str) -> None:
    graph = build_graph(*attending()) if other == "network" else build_graph(Separator(), torch.randn(1, 1, 408))
    assert fingerprint(graph) != timings.network
    with pytest.raises(InputError, match="made for another network, or for inputs of another shape"):
        LatencyModel(graph, timings)
    with pytest.raises(InputError, match="made for another network"):
        select(graph, score(graph), Budget(latency_ms=1), profile=timings)


def test_weights_do_not_matter_to_a_table(timings: LatencyProfile) -> None:
    torch.manual_seed(5)
    assert fingerprint(build_graph(Separator(), torch.randn(1, 1, 400))) == timings.network


def test_another_device_is_refused_by_name(timings: LatencyProfile) -> None:
    timings.require_target(TARGET)
    with pytest.raises(InputError, match="device 'a clockwork', not 'a sundial'; threads 3, not 1"):
        timings.require_target(replace(TARGET, device="a sundial", threads=1))
