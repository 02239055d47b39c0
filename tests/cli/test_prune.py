"""``prunegraph prune``, ``verify`` and ``plugins``."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

import prunegraph
from prunegraph.plugin import Criterion, create_manager, hookimpl
from prunegraph.rules.base import Call, Labels, Rule
from prunegraph_random import Random
from tests.cli.conftest import SEPARATOR
from tests.cli.networks import Separator
from tests.data.speakers import write_speakers
from tests.unknown_op import NAME, mystery


def test_the_budget_is_met_and_the_result_loads(run, tmp_path) -> None:
    result = run("prune", *SEPARATOR, "--macs", 0.5, "--output", tmp_path / "out", "--json")
    document = json.loads(result.stdout)
    dense, pruned = document["cost"]["dense"], document["cost"]["pruned"]
    assert 0.48 <= pruned["macs"] / dense["macs"] <= 0.5
    loaded = prunegraph.load(Separator, tmp_path / "out")
    assert sum(parameter.numel() for parameter in loaded.parameters()) == pruned["parameters"]
    assert document["saved_to"] == str(tmp_path / "out")
    assert {check["name"] for check in document["verification"]["checks"]} >= {"plan", "weights", "cost", "output"}


def test_the_tables_show_costs_checks_and_the_place(run, tmp_path) -> None:
    result = run("prune", *SEPARATOR, "--macs", 0.5, "--output", tmp_path / "out")
    assert result.exit_code == 0
    for text in ("Cost", "activation memory", "Channel groups (2 of 2 shrank)", "Proved", f"saved to {tmp_path}"):
        assert text in result.stdout
    assert "no --checkpoint was given" in result.stderr


def test_without_output_nothing_is_saved(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("prune", *SEPARATOR, "--ratio", 0.5)
    assert "nothing was saved" in result.stdout
    assert list(tmp_path.iterdir()) == []


def _widths(run, *options: object) -> dict[str, int]:
    document = json.loads(run("prune", *SEPARATOR, "--json", *options).stdout)
    return {name.split(".weight")[0]: pair["pruned"] for name, pair in document["widths"].items()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--ratio", 0.5], {"encoder": 8, "masker.0": 12}),
        (["--ratio", 0.5, "--round-to", 8], {"encoder": 8, "masker.0": 8}),
        (["--ratio", 0.9, "--min-width", 5], {"encoder": 5, "masker.0": 5}),
        (["--ratio", 0.5, "--exclude", "masker.0.bias"], {"encoder": 8, "masker.0": 24}),
        (["--ratio", 0.5, "--exclude", "encoder"], {"encoder": 16, "masker.0": 12}),
        (["--ratio", 0.5, "--include", "masker.0.bias"], {"encoder": 16, "masker.0": 12}),
        (["--ratio", 0.5, "--pin", "encoder*=3"], {"encoder": 3, "masker.0": 12}),
        (["--ratio", 0.5, "--pin", "encoder*=3", "--pin", "masker.0.bias=7"], {"encoder": 3, "masker.0": 7}),
    ],
)
def test_options_reach_the_budget(run, options: list[object], expected: dict[str, int]) -> None:
    assert _widths(run, *options) == expected


def test_a_budget_of_parameters_is_met(run) -> None:
    cost = json.loads(run("prune", *SEPARATOR, "--json", "--params", 0.6).stdout)["cost"]
    assert 0.5 < cost["pruned"]["parameters"] / cost["dense"]["parameters"] <= 0.6


def test_the_seed_decides_alone(run, tmp_path) -> None:
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        run("prune", *SEPARATOR, "--ratio", 0.5, "--criterion", "random", "--seed", seed, "--output", tmp_path / name)
    a, b, c = ((tmp_path / name / "pruned.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_checkpoints_are_read(run, tmp_path, suffix: str, wrapped: bool) -> None:
    network, file = Separator(), tmp_path / f"weights{suffix}"
    state = network.state_dict()
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, file)
    options = ("--checkpoint", file, "--ratio", 0.5, "--pin", "encoder*=16")
    result = run("prune", *SEPARATOR, *options, "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert "no --checkpoint" not in result.stderr
    loaded = prunegraph.load(Separator, tmp_path / "out")
    assert torch.equal(loaded.encoder.weight, network.encoder.weight)


def test_verify_proves_what_was_saved(run, saved) -> None:
    result = run("verify", SEPARATOR[0], saved, *SEPARATOR[1:], "--json")
    document = json.loads(result.stdout)
    assert document["verification"]["difference"] <= document["verification"]["tolerance"]
    details = {check["name"]: check["detail"] for check in document["verification"]["checks"]}
    assert "bit by bit" in details["origin"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_verify_says_what_fine_tuning_changed(run, saved, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    result = prunegraph.prune(Separator(), torch.randn(1, 1, 200), budget=prunegraph.Budget(ratio=0.5))
    with torch.no_grad():
        result.model.encoder.bias.add_(1)
    prunegraph.save(dataclasses.replace(result, model=result.model.to(dtype)), saved)
    found = run("verify", SEPARATOR[0], saved, *SEPARATOR[1:])
    assert found.exit_code == 0
    assert "tensors, the first of them" in found.stdout
    assert "exact masked program" in found.stdout


def test_verify_fails_on_a_changed_file(run, saved) -> None:
    file = saved / "pruned.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    result = run("verify", SEPARATOR[0], saved, *SEPARATOR[1:])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pruned.safetensors was changed: tensor" in result.stderr


def test_plugins_lists_the_criteria(run) -> None:
    listed = run("plugins").stdout
    document = json.loads(run("plugins", "--json").stdout)["criteria"]
    assert {entry["name"] for entry in document} >= {"l1", "l2", "random"}
    assert all(entry["name"] in listed and entry["plugin"] in listed for entry in document)
    assert next(entry for entry in document if entry["name"] == "l1")["needs"] == []


class Copied(Rule):
    def labels(self, call: Call) -> Labels:
        return call.labels("x")


@dataclass(frozen=True)
class Undescribed(Random):
    name: str = "undescribed"


def test_plugins_lists_rules_and_criteria_without_a_description(run, monkeypatch: pytest.MonkeyPatch) -> None:
    @hookimpl
    def prunegraph_op_rules() -> Mapping[Any, Rule]:
        return {mystery.default: Copied()}

    @hookimpl
    def prunegraph_criteria() -> Sequence[Criterion]:
        return (Undescribed(),)

    mine = SimpleNamespace(
        __name__="mine", prunegraph_op_rules=prunegraph_op_rules, prunegraph_criteria=prunegraph_criteria
    )
    monkeypatch.setattr("prunegraph.cli.commands.create_manager", lambda: create_manager(mine))
    assert f"rule for {NAME}.default: mine" in run("plugins").stdout
    document = json.loads(run("plugins", "--json").stdout)
    assert document["op_rules"] == [{"op": f"{NAME}.default", "plugin": "mine"}]
    assert next(entry for entry in document["criteria"] if entry["name"] == "undescribed")["summary"] == ""


def test_masks_are_learned_on_a_folder_of_speakers(run, tmp_path) -> None:
    folder = write_speakers(tmp_path / "speakers", clips=8)
    options = ["--speakers", folder, "--batches", 2, "--macs", 0.5, "--json"]
    result = run("prune", "tests.cli.networks:separator", "--input-shape", "2,1,1600", *options)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["criterion"] == "sepprune"
    assert 0.48 <= document["cost"]["pruned"]["macs"] / document["cost"]["dense"]["macs"] <= 0.5


def test_a_network_that_takes_no_mono_signal_cannot_have_mixtures(run, tmp_path) -> None:
    folder = write_speakers(tmp_path / "speakers", clips=8)
    options = ["--input-shape", "2,3,1600", "--speakers", folder, "--macs", 0.5]
    result = run("prune", "tests.cli.networks:separator", *options)
    assert result.exit_code == 1
    assert "takes one mono signal" in result.stderr


def test_masks_need_data(run) -> None:
    result = run("prune", *SEPARATOR, "--macs", 0.5, "--criterion", "sepprune")
    assert result.exit_code == 1
    assert "it needs data" in result.stderr


def test_what_could_not_be_proved_is_shown(run) -> None:
    command = ("prune", "tests.cli.networks:hidden", "--input-shape", "1,1,40", "--ratio", 0.5)
    table = " ".join(run(*command).stdout.split())
    assert "their removal could not be proved group what failed" in table
    assert "into.weight[0] the pruned network does not run" in table
    document = json.loads(run(*command, "--json").stdout)
    assert list(document["unproved"]) == ["into.weight[0]"]
    assert document["widths"]["into.weight[0]"] == {"dense": 8, "pruned": 8}
