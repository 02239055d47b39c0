"""Torch-Pruning on the zoo, run as a careful new user would: L1, ratio 0.3, the output layers ignored.

``python -m benchmarks.zoo.torch_pruning_peer`` runs each network in a process of its own, since some runs do not end,
and writes ``benchmarks/results/torch_pruning_zoo.json``. With a network's name it runs that one in this process.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from benchmarks.zoo.kept import kept_indices, without_statistics, zero_removed
from tests.zoo.networks import STEMS, ZOO, ZooNetwork, quiet, reference_separators

NETWORKS = (*ZOO, *reference_separators())
RESULTS = Path(__file__).parents[1] / "results" / "torch_pruning_zoo.json"
LIMIT_S = 60
RATIO = 0.3
TOLERANCE = 1e-4

OUTPUT_LAYERS: Mapping[str, Sequence[str]] = {
    "torchaudio-ConvTasNet": ["decoder"],
    "torchaudio-HDemucs": ["freq_decoder.4.conv_tr", "time_decoder.3.conv_tr"],
    "asteroid-DCCRNet": ["masker.output_layer", "decoder"],
    "asteroid-DCUNet": ["masker.output_layer", "decoder"],
    "asteroid-DeMask": ["masker.5", "decoder"],
    "asteroid-XUMX": [f"layer_dec.{stem}.dec.{i}" for stem in STEMS for i in (3, 4)],
    "asteroid-FasNetTAC": ["tanh.0", "gate.0"],
    "demucs-Demucs": ["decoder.5.3"],
    "demucs-HDemucs": ["decoder.5.conv_tr", "tdecoder.4.conv_tr"],
    "demucs-HTDemucs": ["decoder.3.conv_tr", "tdecoder.3.conv_tr"],
}
"""The layers whose output channels are the network's own; for all other networks it is the decoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerOutcome:
    """What became of one network.

    Attributes:
        network: Name in the zoo.
        status: ``right``, ``wrong``, ``forward fails``, ``prunes nothing``, ``raises``, ``hangs`` or ``killed``.
        detail: The error, or what was found wrong.
        seconds: Time of building the pruner and pruning; None where it did not end.
        parameters: Parameters left, as a share of those there were.
        difference: Relative difference to the network whose removed channels are zero, norm statistics switched off
            in both: zero exactly where the slices fit together.
    """

    network: str
    status: str
    detail: str = ""
    seconds: float | None = None
    parameters: float | None = None
    difference: float | None = None


def prune(model: nn.Module, inputs: tuple[Tensor, ...], output_layers: Sequence[str]) -> None:
    """Prunes ``model`` in place with Torch-Pruning."""
    pruner = tp.pruner.MagnitudePruner(
        model,
        example_inputs=inputs,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=RATIO,
        ignored_layers=[model.get_submodule(name) for name in output_layers],
    )
    pruner.step()


def run(network: ZooNetwork) -> PeerOutcome:
    """Prunes one network and says what became of it."""
    model, inputs = network.build()
    dense, _ = network.build()
    start = time.perf_counter()
    try:
        prune(model, inputs, OUTPUT_LAYERS.get(network.name, ["decoder"]))
    except Exception as error:
        return PeerOutcome(network=network.name, status="raises", detail=_first_line(error))
    seconds = time.perf_counter() - start
    left = sum(map(torch.numel, model.parameters())) / sum(map(torch.numel, dense.parameters()))
    status, detail, difference = judge(dense, model, inputs) if left < 1 else ("prunes nothing", "", None)
    return PeerOutcome(
        network=network.name,
        status=status,
        detail=detail,
        seconds=round(seconds, 2),
        parameters=round(left, 3),
        difference=difference,
    )


def judge(dense: nn.Module, pruned: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[str, str, float | None]:
    """Runs the pruned network and compares it with the dense one whose removed entries are zero."""
    try:
        with torch.no_grad():
            pruned(*inputs)
    except Exception as error:
        return "forward fails", _first_line(error), None
    try:
        zero_removed(dense, kept_indices(dense, pruned))
        with torch.no_grad(), without_statistics(dense), without_statistics(pruned):
            difference = relative_difference(dense(*inputs), pruned(*inputs))
    except ValueError as error:
        return "wrong", str(error), None
    return ("right" if difference <= TOLERANCE else "wrong"), "", float(f"{difference:.1e}")


def relative_difference(expected: object, actual: object) -> float:
    """Largest difference of any output entry, relative to the largest entry of that output."""
    pairs = list(zip(pytree.tree_leaves(expected), pytree.tree_leaves(actual), strict=True))
    for one, other in pairs:
        if one.shape != other.shape:
            raise ValueError(f"output shape {tuple(other.shape)} instead of {tuple(one.shape)}")
    return max(float((one - other).abs().max() / one.abs().max().clamp_min(1e-30)) for one, other in pairs)


def run_apart(network: ZooNetwork) -> PeerOutcome:
    """Runs one network in a process of its own, for at most ``LIMIT_S`` seconds of processor time."""
    command = [sys.executable, "-m", "benchmarks.zoo.torch_pruning_peer", network.name]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == -signal.SIGXCPU:
        return PeerOutcome(network=network.name, status="hangs", detail=f"no end within {LIMIT_S} s")
    if done.returncode < 0:
        return PeerOutcome(network=network.name, status="killed", detail=f"signal {-done.returncode}")
    if done.returncode:
        raise RuntimeError(f"the comparison itself failed on {network.name}:\n{done.stderr}")
    return PeerOutcome(**json.loads(done.stdout.splitlines()[-1]))


def load() -> tuple[dict[str, PeerOutcome], str]:
    """Returns the committed outcomes by network, and how they were obtained."""
    record = json.loads(RESULTS.read_text())
    outcomes = {entry["network"]: PeerOutcome(**entry) for entry in record["networks"]}
    return outcomes, f"version {record['torch_pruning']}, {record['setting']}"


def main() -> None:
    """Runs the whole zoo and writes the results, or one network where the command line names it."""
    if len(sys.argv) > 1:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 1))
        with quiet():
            print(json.dumps(asdict(run(next(network for network in NETWORKS if network.name == sys.argv[1])))))
        return
    outcomes = []
    for network in NETWORKS:
        outcomes.append(run_apart(network))
        print(outcomes[-1], file=sys.stderr)
    record = {
        "command": "python -m benchmarks.zoo.torch_pruning_peer",
        "torch_pruning": version("torch-pruning"),
        "torch": torch.__version__,
        "setting": f"MagnitudePruner, L1, ratio {RATIO}, output layers ignored, {LIMIT_S} s of processor time at most",
        "networks": [asdict(outcome) for outcome in outcomes],
    }
    unfinished = RESULTS.with_suffix(".json.part")
    unfinished.write_text(json.dumps(record, indent=2) + "\n")
    unfinished.replace(RESULTS)


def _first_line(error: Exception) -> str:
    """The message and the innermost place that raised it."""
    lines = str(error).splitlines()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "/".join(Path(frame.filename).parts[-3:])
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''} ({where}:{frame.lineno})"


if __name__ == "__main__":
    main()
