"""The two files of a saved network: ``pruned.safetensors`` and ``plan.json``, with a hash of every part.

``plan.json`` is one JSON object with a section per line. "sha256" holds the hash of ``pruned.safetensors`` and of each
section, in canonical form (sorted keys, no spaces). The hashes tell damage and confusion of files, not forgery.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from prunegraph.errors import FileFormatError, PlanError
from prunegraph.io.directory import write_directory
from prunegraph.io.state import NetworkState
from prunegraph.ir.cost import Cost, ModuleCost
from prunegraph.ir.plan import PruningPlan

WEIGHTS, PLAN = "pruned.safetensors", "plan.json"
FORMAT, SCHEMA_VERSION = "prunegraph pruned network", 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedNetwork:
    """What is saved of a pruned network.

    Attributes:
        plan: what was removed.
        state: the smaller network's tensors and flags.
        structure: the smaller network's classes and settings, see `prunegraph.io.structure`.
        criterion: name of the importance criterion.
        dense: cost before.
        pruned: cost after.
    """

    plan: PruningPlan
    state: NetworkState
    structure: Mapping[str, Mapping[str, Any]]
    criterion: str
    dense: Cost
    pruned: Cost


def write(saved: SavedNetwork, path: Path) -> None:
    """Writes both files, all or nothing.

    Raises:
        InputError: something else stands in the path's place.
        OSError: the files cannot be written.
    """
    stored = {name: _storable(tensor) for name, tensor in saved.state.tensors.items()}
    weights = safetensors.torch.save(stored, metadata={**saved.state.aliases, "format": "pt"})
    sections = json.loads(json.dumps(_sections(saved, stored, len(weights))))
    sections["sha256"] = {WEIGHTS: _digest(weights), **{name: _digest_json(part) for name, part in sections.items()}}
    write_directory(path, {WEIGHTS: weights, PLAN: _text(sections).encode()}, PLAN, FORMAT)


def read(path: Path) -> SavedNetwork:
    """Reads and checks both files.

    Raises:
        FileFormatError: a file is missing, cut, changed or of another schema version; names what differs.
    """
    document = _checked_document(path / PLAN, _content(path, PLAN))
    weights = _content(path, WEIGHTS)
    if _digest(weights) != document["sha256"].get(WEIGHTS):
        raise FileFormatError(f"{path / WEIGHTS} was changed: {_first_change(weights, document['weights'])}")
    try:
        plan = PruningPlan.from_json(json.dumps(document["plan"]))
    except PlanError as error:
        raise FileFormatError(f"{path / PLAN}: {error}") from error
    return SavedNetwork(
        plan=plan,
        state=_state(document, weights),
        structure=document["structure"],
        criterion=document["criterion"],
        dense=_cost(document["cost"]["dense"]),
        pruned=_cost(document["cost"]["pruned"]),
    )


def _sections(saved: SavedNetwork, stored: Mapping[str, torch.Tensor], size: int) -> dict[str, Any]:
    state = saved.state
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "written_by": {"prunegraph": version("prunegraph"), "torch": torch.__version__},
        "criterion": saved.criterion,
        "cost": {"dense": asdict(saved.dense), "pruned": asdict(saved.pruned)},
        "plan": json.loads(saved.plan.to_json()),
        "structure": saved.structure,
        "state": {"training": state.training, "channels_last": state.channels_last, "extra": state.extra},
        "weights": {
            "bytes": size,
            "aliases": state.aliases,
            "complex128": [name for name, tensor in state.tensors.items() if tensor.dtype == torch.complex128],
            "sha256": {name: _digest_tensor(tensor) for name, tensor in stored.items()},
        },
    }


def _storable(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU, of an element type that safetensors has."""
    tensor = torch.view_as_real(tensor) if tensor.dtype == torch.complex128 else tensor
    return tensor.cpu().contiguous()


def _state(document: Mapping[str, Any], weights: bytes) -> NetworkState:
    """Tensors are copied out of the file's bytes: sums over unaligned memory may differ in the last bit."""
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load(weights).items()}
    for name in document["weights"]["complex128"]:
        tensors[name] = torch.view_as_complex(tensors[name])
    return NetworkState(
        tensors=tensors,
        aliases=document["weights"]["aliases"],
        channels_last=tuple(document["state"]["channels_last"]),
        training=tuple(document["state"]["training"]),
        extra=document["state"]["extra"],
    )


def _content(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except FileNotFoundError as error:
        found = f"{path} has no {name}" if path.is_dir() else f"there is no directory {path}"
        raise FileFormatError(f"{found}; a saved network is a directory with {WEIGHTS} and {PLAN}") from error
    except OSError as error:
        raise FileFormatError(f"{path / name} cannot be read: {error.strerror}") from error


def _checked_document(file: Path, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{file} is cut or was changed: it is no JSON any more ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileFormatError(f"{file} does not describe a network saved by prunegraph, or its first line was changed")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise FileFormatError(
            f"{file} has schema version {document.get('schema_version')}, prunegraph {version('prunegraph')} reads "
            f"{SCHEMA_VERSION}; use the prunegraph that wrote it"
        )
    _check_sections(file, document)
    return document


def _check_sections(file: Path, document: Mapping[str, Any]) -> None:
    recorded = document.get("sha256")
    if not isinstance(recorded, dict):
        raise FileFormatError(f"{file} was changed: its section 'sha256' is missing")
    sections = {name: part for name, part in document.items() if name != "sha256"}
    for name in sorted({*sections, *recorded} - {WEIGHTS}):
        if name not in sections:
            raise FileFormatError(f"{file} was changed: its section {name!r} is missing")
        found = _digest_json(sections[name])
        if recorded.get(name) != found:
            raise FileFormatError(
                f"{file} was changed: the sha256 of its section {name!r} is {found[:12]}..., "
                f"recorded is {str(recorded.get(name))[:12]}..."
            )


def _first_change(weights: bytes, expected: Mapping[str, Any]) -> str:
    """Names the tensor, once it is known that something differs."""
    if len(weights) != expected["bytes"]:
        return f"it has {len(weights):,} bytes, saved were {expected['bytes']:,}"
    try:
        tensors = safetensors.torch.load(weights)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        return f"its header is damaged ({error})"
    for name, digest in expected["sha256"].items():
        if name not in tensors:
            return f"tensor {name} is missing"
        if _digest_tensor(tensors[name]) != digest:
            return f"tensor {name} has other values than were saved"
    return f"its header differs from what was saved, or the sha256 of it that {PLAN} records was changed"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_json(part: Any) -> str:
    return _digest(json.dumps(part, sort_keys=True, separators=(",", ":")).encode())


def _digest_tensor(tensor: torch.Tensor) -> str:
    flat = tensor.contiguous().reshape(-1)
    return _digest(str((tensor.dtype, tuple(tensor.shape))).encode() + flat.view(torch.uint8).numpy().tobytes())


def _text(sections: Mapping[str, Any]) -> str:
    lines = (f"{json.dumps(name)}: {json.dumps(part)}" for name, part in sections.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _cost(raw: Mapping[str, Any]) -> Cost:
    modules = tuple(ModuleCost(**module) for module in raw["modules"])
    return Cost(
        macs=raw["macs"], parameters=raw["parameters"], activation_bytes=raw["activation_bytes"], modules=modules
    )
