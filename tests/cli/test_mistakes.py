"""Users' mistakes: one clear line and a non-zero exit code, never a traceback, nothing written."""

import pytest
import safetensors.torch
import torch

from tests.cli.conftest import SEPARATOR
from tests.cli.networks import Separator

SHAPE = ("--input-shape", "1,1,200")
HERE = "tests.cli.networks"


def _check_one_line(result, message: str) -> None:
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr
    assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["networks"], "names no network; expected package.module:factory"),
        (["nowhere.networks:net"], "ModuleNotFoundError: No module named 'nowhere'"),
        (["nowhere.py:net"], "there is no file nowhere.py"),
        ([f"{HERE}:seperator"], "has no 'seperator'; did you mean separator"),
        ([f"{HERE}:NUMBER"], "is of type int"),
        ([f"{HERE}:text", *SHAPE], "returned str; expected a torch.nn.Module"),
        ([f"{HERE}:failing", *SHAPE], "ValueError: no such width"),
        ([f"{HERE}:failing", *SHAPE], "networks.py:"),
        ([f"{HERE}:leaving", *SHAPE], "SystemExit: usage: train.py"),
        ([f"{HERE}:separator"], "give --input-shape (as in 1,1,8000)"),
        ([f"{HERE}:separator", "--input-shape", "1,3,200"], "expected input[1, 3, 200] to have 1 channels"),
        ([*SEPARATOR, "--kwargs", '{"speakers": 3}'], "unexpected keyword argument 'speakers'"),
        ([f"{HERE}:NETWORK", *SHAPE, "--kwargs", '{"width": 3}'], "takes no --kwargs"),
        ([*SEPARATOR, "--checkpoint", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
        ([*SEPARATOR, "--graphml", "nowhere/graph.graphml"], "there is no directory nowhere"),
        ([*SEPARATOR, "--graphml", "."], ". is a directory; give the name of a file"),
        (
            [f"{HERE}:separator", "--input-shape", f"1,1,{10**15}"],
            "no example input of shape 1,1,1000",
        ),
        (
            [f"{HERE}:separator", "--input-shape", f"1,1,{10**30}"],
            "no example input of shape 1,1,1000",
        ),
    ],
)
def test_a_mistake_about_the_network(run, arguments: list[str], message: str) -> None:
    _check_one_line(run("inspect", *arguments), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--macs", 0.001], "macs=0.001 cannot be met: this network can go from"),
        (["--macs", 0], "macs=0.0 is out of range"),
        (["--macs", -1], "macs=-1.0 is out of range"),
        (["--ratio", 1], "ratio=1.0 is out of range"),
        (
            ["--macs", 0.5, "--ratio", 0.5],
            "a budget as macs=..., params=..., latency_ms=... and/or rtf=..., or as ratio=...",
        ),
        (["--macs", 0.5, "--round-to", 0], "round_to=0 must be"),
        (["--macs", 0.5, "--include", "nothing.*"], "the pattern 'nothing.*' matches no channel group"),
        (["--macs", 0.5, "--pin", "encoder*=99"], "cannot pin group 'encoder.weight[0]' to 99 channels: it has 16"),
        (["--macs", 0.5, "--criterion", "l11"], "no criterion is named 'l11'; did you mean 'l1'"),
    ],
)
def test_a_mistake_about_the_budget(run, tmp_path, options: list[object], message: str) -> None:
    _check_one_line(run("prune", *SEPARATOR, *options, "--output", tmp_path / "out"), message)
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_anything_to_prune(run) -> None:
    _check_one_line(run("prune", f"{HERE}:all_locked", "--macs", 0.5), "there is nothing to prune")


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune", *SEPARATOR],
        ["prune", *SEPARATOR, "--macs", "half"],
        ["prune", *SEPARATOR, "--macs", "0.5", "--pin", "encoder"],
        ["prune", *SEPARATOR, "--macs", "0.5", "--pin", "encoder=wide"],
        ["inspect", SEPARATOR[0], "--input-shape", "1,x"],
        ["inspect", SEPARATOR[0], "--input-shape", "1,0"],
        ["inspect", *SEPARATOR, "--kwargs", "{"],
        ["inspect", *SEPARATOR, "--kwargs", "[1]"],
        ["inspect", *SEPARATOR, "--colour"],
        ["prune", *SEPARATOR, "--macs", "0.5", "--seed", str(2**64)],
        ["prune", *SEPARATOR, "--macs", "0.5", "--seed", "-1"],
        ["prune", *SEPARATOR, "--macs", "0.5", "--sample-rate", "0"],
        ["inspect"],
        ["verify", SEPARATOR[0]],
        ["shrink"],
    ],
)
def test_wrong_usage_exits_with_2(run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: prunegraph" in result.stderr
    assert "Traceback" not in result.stderr


def _other_keys(state: dict) -> dict:
    return {name.replace("encoder.", "front."): tensor for name, tensor in state.items()}


def _half_wrapped(state: dict) -> dict:
    return {f"module.{name}" if name < "e" else name: tensor for name, tensor in state.items()}


def _other_shape(state: dict) -> dict:
    return state | {"encoder.weight": torch.zeros(4, 1, 8)}


def _without_bias(state: dict) -> dict:
    return {name: tensor for name, tensor in state.items() if name != "decoder.bias"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (_other_keys, ["2 missing keys: encoder.weight, encoder.bias", "2 unexpected keys: front."]),
        (_half_wrapped, ["2 unexpected keys: module.decoder."]),
        (_other_shape, ["size mismatch for encoder.weight"]),
        (_without_bias, ["1 missing keys: decoder.bias"]),
    ],
)
def test_a_checkpoint_of_another_network(run, tmp_path, suffix: str, change, messages: list[str]) -> None:
    file, state = tmp_path / f"weights{suffix}", change(Separator().state_dict())
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(state, file)
    result = run("inspect", *SEPARATOR, "--checkpoint", file)
    for message in messages:
        _check_one_line(result, message)


@pytest.mark.parametrize("prefix", ["module.", "model.", "model._orig_mod."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_of_the_network_in_a_wrapper(run, tmp_path, suffix: str, prefix: str) -> None:
    """As DataParallel, Lightning and torch.compile write them."""
    own, wrapped = tmp_path / f"own{suffix}", tmp_path / f"wrapped{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    state = Separator().state_dict()
    save(state, own)
    save({f"{prefix}{name}": tensor for name, tensor in state.items()}, wrapped)
    plans = [run("prune", *SEPARATOR, "--macs", 0.5, "--json", "--checkpoint", file) for file in (own, wrapped)]
    assert plans[0].exit_code == 0
    assert plans[0].stdout == plans[1].stdout


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("cut.pt", lambda file: file.write_bytes(b"PK\3\4"), "cannot be read"),
        ("empty.pt", lambda file: file.write_bytes(b""), "cannot be read"),
        ("cut.safetensors", lambda file: file.write_bytes(b"\1\2\3"), "cannot be read"),
        ("whole.pt", lambda file: torch.save(Separator(), file), "holds more than tensors"),
        ("list.pt", lambda file: torch.save([torch.zeros(2)], file), "holds list; expected a state dict"),
        ("weights.h5", lambda file: file.write_bytes(b"x"), "is of no known kind"),
    ],
)
def test_a_file_that_is_no_checkpoint(run, tmp_path, name: str, write, message: str) -> None:
    write(tmp_path / name)
    _check_one_line(run("inspect", *SEPARATOR, "--checkpoint", tmp_path / name), message)


@pytest.mark.parametrize("existing", ["file", "foreign", "result"])
def test_an_output_that_exists_is_refused_before_any_work(run, saved, existing: str) -> None:
    target = saved if existing == "result" else saved.parent / existing
    if existing == "file":
        target.write_text("precious")
    if existing == "foreign":
        target.mkdir()
    result = run("prune", *SEPARATOR, "--macs", 0.3, "--output", target)
    _check_one_line(result, "exists already; give another --output")
    assert "separating" not in result.stderr


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    run, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By asking the system, which lets root write anywhere."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    result = run("prune", f"{HERE}:failing", *SHAPE, "--macs", 0.5, "--output", tmp_path / "new" / "out")
    _check_one_line(result, f"nothing can be written to {tmp_path}")


def test_force_replaces_results_and_nothing_else(run, saved) -> None:
    before = (saved / "plan.json").read_text()
    assert run("prune", *SEPARATOR, "--macs", 0.3, "--output", saved, "--force").exit_code == 0
    assert (saved / "plan.json").read_text() != before
    (saved / "notes.txt").write_text("precious")
    _check_one_line(run("prune", *SEPARATOR, "--macs", 0.3, "--output", saved, "--force"), "holds notes.txt")
    assert (saved / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize(("directory", "message"), [("nowhere", "there is no directory"), (".", "has no plan.json")])
def test_a_directory_without_a_result(run, tmp_path, directory: str, message: str) -> None:
    _check_one_line(run("verify", SEPARATOR[0], tmp_path / directory, *SEPARATOR[1:]), message)


def test_a_result_of_another_network(run, saved) -> None:
    result = run("verify", f"{HERE}:with_example", saved)
    _check_one_line(result, "the plan was made for another network")


def test_an_interrupt_exits_with_130(run) -> None:
    result = run("inspect", f"{HERE}:interrupted", *SHAPE)
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
