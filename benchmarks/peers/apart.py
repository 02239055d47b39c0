"""One library on one network in a process of its own, since some runs do not end.

``python -m benchmarks.peers.apart LIBRARY [NETWORK] [--packages FOLDER ...]`` prints the outcome as JSON; without a
network, whether the library can be used.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

import prunegraph
from benchmarks.memory import with_peak
from benchmarks.peers.judge import Verdict, first_line, judge, size
from benchmarks.peers.libraries import PRUNEGRAPH, RATIO, Inputs, Library, library_named
from benchmarks.zoo.kept import tell_apart
from benchmarks.zoo.subjects import network_named, output_layers
from tests.zoo.networks import ZooNetwork, quiet

LIMIT_S = 60
GROUPS, PRUNING = "groups", "pruning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one network in the hands of one library.

    Attributes:
        pruner: Name of the library.
        network: Name in the zoo.
        status: That of a verdict, or ``raises``, ``hangs`` or ``killed``.
        detail: The error, or what was found wrong.
        groups_s: Processor time of finding the groups; None where that did not end.
        pruning_s: Processor time of choosing and removing channels; None where that did not end.
        peak_mb: How far both together raised the memory of the process.
        parameters: Parameters left, as a share of those there were.
        difference: That of the verdict.
    """

    pruner: str
    network: str
    status: str
    detail: str = ""
    groups_s: float | None = None
    pruning_s: float | None = None
    peak_mb: int | None = None
    parameters: float | None = None
    difference: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the library handed a network back, right or wrong."""
        return self.pruning_s is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Whether a library can be used here.

    Attributes:
        pruner: Its name.
        version: What is installed, if anything.
        problem: Why it cannot be used, or nothing.
    """

    pruner: str
    version: str
    problem: str


def run(library: Library, network: ZooNetwork) -> Outcome:
    """Prunes one network and says what became of it."""
    (dense, inputs), (model, _) = build(network), build(network)
    seconds: dict[str, float] = {}
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + LIMIT_S, resource.RLIM_INFINITY))
    try:
        pruned, peak = with_peak(lambda: timed(library, model, inputs, output_layers(network.name), seconds))
    except Exception as error:
        return Outcome(
            pruner=library.name,
            network=network.name,
            status="raises",
            detail=first_line(error),
            groups_s=seconds.get(GROUPS),
        )
    resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    left = size(pruned) / size(dense)
    status, detail, difference = verdict(library, network, dense, pruned)
    return Outcome(
        pruner=library.name,
        network=network.name,
        status=status,
        detail=detail,
        groups_s=seconds[GROUPS],
        pruning_s=seconds[PRUNING],
        peak_mb=peak,
        parameters=round(left, 3),
        difference=difference,
    )


def build(network: ZooNetwork) -> tuple[nn.Module, Inputs]:
    """The network, warm, no two entries of a vector alike."""
    model, inputs = network.build()
    tell_apart(model)
    with torch.no_grad():
        model(*inputs)
    return model, inputs


def warm_up(library: Library) -> None:
    """What a library loads on its first use is no cost of a network."""
    with contextlib.suppress(Exception):  # what is wrong with the library is seen on the network
        library.prepare(nn.Sequential(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 2, 3)), (torch.randn(1, 1, 99),), ["1"])()


def timed(
    library: Library, model: nn.Module, inputs: Inputs, outputs: Sequence[str], seconds: dict[str, float]
) -> nn.Module:
    """Finds the groups and prunes; notes the processor time of each as it ends."""
    began = time.process_time()
    prune = library.prepare(model, inputs, outputs)
    seconds[GROUPS] = round(time.process_time() - began, 2)
    print(json.dumps(seconds), flush=True)
    pruned = prune()
    seconds[PRUNING] = round(time.process_time() - began - seconds[GROUPS], 2)
    return pruned


def verdict(library: Library, network: ZooNetwork, dense: nn.Module, pruned: nn.Module) -> Verdict:
    """Zeroed channels decide; where attention is scaled by its width, for prunegraph its own proof."""
    _, inputs = network.build()
    found = judge(dense, pruned, inputs)
    if found.status == "wrong" and library is PRUNEGRAPH:
        return proved(network, found)
    return found


def proved(network: ZooNetwork, found: Verdict) -> Verdict:
    """What the exact masked program says, which scales attention as the code does."""
    model, inputs = build(network)
    graph = prunegraph.build_graph(model, inputs)
    plan = prunegraph.select(graph, prunegraph.score(graph, "l1"), prunegraph.Budget(ratio=RATIO))
    try:
        report = prunegraph.verify(model, prunegraph.apply(model, plan), plan, inputs, graph=graph)
    except prunegraph.VerificationError:
        return found
    return Verdict("right", "by the exact masked program", float(f"{report.difference:.1e}"))


def run_apart(library: str, network: str, packages: Sequence[Path]) -> Outcome:
    """Runs one network in a process of its own, for at most ``LIMIT_S`` seconds of processor time."""
    done = start([library, network], packages)
    if done.returncode == -signal.SIGXCPU:
        stage = "pruning" if done.stdout else "finding groups"
        return Outcome(pruner=library, network=network, status="hangs", detail=f"{stage}, no end within {LIMIT_S} s")
    if done.returncode < 0:
        return Outcome(pruner=library, network=network, status="killed", detail=f"signal {-done.returncode}")
    return Outcome(**last_line(done))


def look_for(library: str, packages: Sequence[Path]) -> Presence:
    """Whether the library can be used, found out in a process of its own."""
    return Presence(**last_line(start([library], packages)))


def start(arguments: Sequence[str], packages: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Runs this module in a new process, one thread."""
    folders = ["--packages", *map(str, packages)] if packages else []
    command = [sys.executable, "-m", "benchmarks.peers.apart", *arguments, *folders]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """What the process found; libraries print much before it."""
    if done.returncode:
        raise RuntimeError(f"the comparison itself failed: {done.args}\n{done.stderr}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """The new process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pruner")
    parser.add_argument("network", nargs="?")
    parser.add_argument("--packages", nargs="*", default=[])
    given = parser.parse_args()
    sys.path.extend(given.packages)
    library = library_named(given.pruner)
    problem = library.problem()
    found: Outcome | Presence = Presence(pruner=library.name, version=library.version(), problem=problem)
    if given.network:
        network = network_named(given.network)
        with quiet():
            warm_up(library)
            found = run(library, network)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
