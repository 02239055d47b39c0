"""Whatever happens to the files is noticed and named."""

import json
import random
import re
from pathlib import Path

import pytest
import safetensors.torch
from torch import nn

import prunegraph
from prunegraph import FileFormatError
from tests.io.networks import EXAMPLES, Codec, PlainAttribute, Tied

FACTORY = EXAMPLES["plain"].factory


def _flip(file: Path, position: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["pruned.safetensors", "plan.json"])
def test_every_flipped_bit_is_noticed(saved: Path, name: str) -> None:
    """At 150 random places: header, values, hashes, numbers of the plan."""
    file = saved / name
    original, draw = file.read_bytes(), random.Random(5)
    for _ in range(150):
        position, bit = draw.randrange(len(original)), draw.randrange(8)
        _flip(file, position, bit)
        with pytest.raises(FileFormatError, match=re.escape(name)):
            prunegraph.load(FACTORY, saved)
        file.write_bytes(original)
    assert prunegraph.load(FACTORY, saved)


@pytest.mark.parametrize("name", ["pruned.safetensors", "plan.json"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_cut_file_is_noticed(saved: Path, name: str, share: float) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FileFormatError, match=re.escape(name)):
        prunegraph.load(FACTORY, saved)


def test_a_longer_file_is_noticed(saved: Path) -> None:
    file = saved / "pruned.safetensors"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(FileFormatError, match="bytes, saved were"):
        prunegraph.load(FACTORY, saved)


@pytest.mark.parametrize("tensor", ["encoder.weight", "middle.weight", "decoder.bias"])
def test_the_changed_tensor_is_named(saved: Path, tensor: str) -> None:
    file = saved / "pruned.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors[tensor].view(-1)[0] += 1
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(FileFormatError, match=f"tensor {tensor} has other values"):
        prunegraph.load(FACTORY, saved)


def _edit_plan(document: dict) -> None:
    document["plan"]["kept"]["encoder.weight[0]"][0] ^= 1


def _edit_attribute(document: dict) -> None:
    document["plan"]["attributes"][0][3] += 1


def _edit_structure(document: dict) -> None:
    document["structure"]["encoder"]["settings"]["stride"] = [1]


def _edit_cost(document: dict) -> None:
    document["cost"]["pruned"]["macs"] //= 2


def _edit_hash(document: dict) -> None:
    document["sha256"]["plan"] = "0" * 64


def _edit_versions(document: dict) -> None:
    document["written_by"]["torch"] = "3.0"


@pytest.mark.parametrize(
    ("edit", "section"),
    [
        (_edit_plan, "plan"),
        (_edit_attribute, "plan"),
        (_edit_structure, "structure"),
        (_edit_cost, "cost"),
        (_edit_hash, "plan"),
        (_edit_versions, "written_by"),
        (lambda document: document.pop("state"), "state"),
        (lambda document: document.update(note="mine"), "note"),
        (lambda document: document.pop("sha256"), "sha256"),
    ],
)
def test_the_edited_section_is_named(saved: Path, edit, section: str) -> None:
    file = saved / "plan.json"
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))
    with pytest.raises(FileFormatError, match=f"plan.json was changed: .*section '{section}'"):
        prunegraph.load(FACTORY, saved)


def test_laying_the_json_out_anew_is_no_change(saved: Path) -> None:
    file = saved / "plan.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4))
    assert prunegraph.load(FACTORY, saved)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_schema_version_is_refused(saved: Path, version: object) -> None:
    file = saved / "plan.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": version}))
    with pytest.raises(FileFormatError, match=f"schema version {version}.* reads 1"):
        prunegraph.load(FACTORY, saved)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 1}', "\x00", "[" * 100_000])
def test_a_foreign_plan_is_refused(saved: Path, content: str) -> None:
    (saved / "plan.json").write_text(content)
    with pytest.raises(FileFormatError, match=re.escape("plan.json")):
        prunegraph.load(FACTORY, saved)


@pytest.mark.parametrize("name", ["pruned.safetensors", "plan.json"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(FileFormatError, match=f"has no {name}"):
        prunegraph.load(FACTORY, saved)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"there is no directory .*nowhere"):
        prunegraph.load(FACTORY, tmp_path / "nowhere")


def test_files_of_two_results_do_not_mix(saved: Path, plain: prunegraph.PruningResult, tmp_path: Path) -> None:
    plain.model.encoder.weight.data.mul_(2)
    try:
        other = prunegraph.save(plain, tmp_path / "other")
    finally:
        plain.model.encoder.weight.data.div_(2)
    (saved / "pruned.safetensors").write_bytes((other / "pruned.safetensors").read_bytes())
    with pytest.raises(FileFormatError, match=r"encoder\.weight has other values"):
        prunegraph.load(FACTORY, saved)


class Untied(Tied):
    """As `Tied`, without the tie."""

    def __init__(self) -> None:
        super().__init__()
        self.second.weight = nn.Parameter(self.first.weight.detach().clone())


def _with_stride(stride: int) -> nn.Module:
    network = FACTORY()
    network.decoder.stride = (stride,)
    return network


@pytest.mark.parametrize(
    ("factory", "difference"),
    [
        (lambda: Codec(nn.PReLU(10), 10), r"encoder\.weight has shape .12, 1, 4. in the plan and .10, 1, 4. in Codec"),
        (lambda: Codec(nn.ReLU()), r"middle\.weight .* no place in Codec"),
        (lambda: Codec(PlainAttribute()), r"middle\.weight"),
        (lambda: nn.Linear(3, 4), "encoder.weight"),
        (lambda: _with_stride(1), r"decoder \(ConvTranspose1d\) has stride=\[2\] there, stride=\[1\] here"),
    ],
)
def test_another_network_is_refused(saved: Path, factory, difference: str) -> None:
    with pytest.raises(FileFormatError, match=difference):
        prunegraph.load(factory, saved)


def test_other_ties_are_refused(tmp_path: Path) -> None:
    example = EXAMPLES["tied"]
    result = prunegraph.prune(example.factory(), example.inputs(), budget=prunegraph.Budget(ratio=0.3))
    path = prunegraph.save(result, tmp_path / "saved")
    with pytest.raises(FileFormatError, match=r"Untied|second\.weight"):
        prunegraph.load(Untied, path)


def test_an_already_pruned_network_is_refused(saved: Path) -> None:
    with pytest.raises(FileFormatError, match="another network"):
        prunegraph.load(prunegraph.load(FACTORY, saved), saved)


def test_a_factory_of_something_else_is_refused(saved: Path) -> None:
    with pytest.raises(prunegraph.InputError, match="returned str"):
        prunegraph.load(lambda: "network", saved)  # type: ignore[arg-type, return-value]
