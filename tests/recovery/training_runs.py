"""A tiny recovery, run in processes that are killed or share their work; a script of the tests.

It prints one JSON document. Children are forked, so that torch is imported once.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import prunegraph
from prunegraph.recovery import recovering
from prunegraph.recovery.recovering import recover
from prunegraph.recovery.settings import GradualPruning, RecoverySettings

SETTINGS = RecoverySettings(steps=12, check_every=2, patience=0, learning_rate=1e-2, falling=0.5, seed=5)


def network() -> nn.Module:
    """Two speakers from one channel, with a dropout that draws random numbers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 8, 9, padding=4), nn.Dropout(0.1), nn.PReLU(), nn.Conv1d(8, 2, 9, padding=4))


def batches(start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A slow and a fast tone, with phases from the global generator, as data sets may do it."""
    while True:
        sources = torch.sin(torch.arange(64) * torch.tensor([[0.05], [1.5]]) + 6.28 * torch.rand(4, 2, 1))
        yield sources.sum(1, keepdim=True), sources
        start += 1


def gradual() -> GradualPruning:
    """Two rounds."""
    budgets = (prunegraph.Budget(macs=0.8), prunegraph.Budget(macs=0.8))
    return GradualPruning(example_inputs=torch.randn(1, 1, 64), budgets=budgets, between=4, criterion="l1")


def run(folder: Path) -> dict[str, Any]:
    """Goes on with a run, and says how it ended."""
    found = recover(network(), batches, SETTINGS, gradual=gradual(), run=folder)
    state = {name: tensor.flatten().tolist() for name, tensor in found.model.state_dict().items()}
    checks = [(check.step, check.loss, check.learning_rate) for check in found.checks]
    return {"state": state, "checks": checks, "best": found.best_step, "rounds": len(found.plans)}


def die_at(module: Any, name: str, call: int) -> None:
    """Kills this process before the given call of a function."""
    original, calls = getattr(module, name), iter(range(1, 1000))

    def function(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(module, name, function)


def forked(work: Callable[[], None]) -> int:
    """Runs something in a child; returns its number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            sys.stdout.flush()
            os._exit(0)
    return child


def killed_run(folder: Path) -> dict[str, Any]:
    """The same run, killed in a step, before a file is whole, before it has its name, and after."""
    deaths = [
        (torch.Tensor, "backward", 4),
        (os, "fsync", 3),
        (Path, "replace", 2),
        (recovering, "write_checkpoint", 3),
    ]
    statuses = []
    for module, name, call in deaths:

        def work(module: Any = module, name: str = name, call: int = call) -> None:
            die_at(module, name, call)
            run(folder)

        statuses.append(os.waitpid(forked(work), 0)[1])
    return {**run(folder), "killed": [os.WTERMSIG(status) for status in statuses]}


def gradients(fabric: Fabric) -> dict[str, Any]:
    """The gradients of three steps, as the optimizer sees them."""
    seen: list[list[float]] = []
    quiet = nn.Sequential(*(module for module in network() if not isinstance(module, nn.Dropout)))

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        seen.append([v for g in optimizer.param_groups for p in g["params"] for v in p.grad.flatten().tolist()])

    handle = register_optimizer_step_pre_hook(note)
    settings = RecoverySettings(steps=3, check_every=2, seed=1)
    found = recover(quiet, batches, settings, fabric=fabric, validation=[next(batches(0))])
    handle.remove()
    return {"gradients": seen, "losses": [check.loss for check in found.checks]}


def shared(folder: Path) -> dict[str, Any]:
    """One process alone, then two together over gloo."""
    alone = gradients(Fabric(accelerator="cpu", devices=1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="1", GROUP_RANK="0")
        fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
        fabric.launch()
        (folder / f"{rank}.json").write_text(json.dumps({**gradients(fabric), "world": fabric.world_size}))
        fabric.barrier()

    children = [forked(lambda rank=rank: work(rank)) for rank in range(2)]
    for child in children:
        os.waitpid(child, 0)
    return {"alone": alone, "together": [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(exist_ok=True)
    found = {"killed": killed_run(place / "killed"), "whole": run(place / "whole"), "shared": shared(place)}
    sys.stdout.write(json.dumps(found))
