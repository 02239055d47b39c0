"""What half of the MACs is worth in time: makes ``benchmarks/results/speed.md``.

python -m benchmarks.speed [network ...] [--form eager|optimized|compiled] [--seconds 1 4]

What was measured before is kept: a network whose rows are there is not measured again unless it is named. On a machine
that others use, OMP_WAIT_POLICY=passive keeps threads that wait from taking processor time.
"""

import argparse
import json
import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from benchmarks.result_files import write_whole
from benchmarks.speed_table import page
from prunegraph import (
    Budget,
    DependencyGraph,
    PruningPlan,
    apply,
    build_graph,
    optimize,
    profile,
    score,
    select,
)
from prunegraph.capture.tracer import capture
from prunegraph.graph import recorded_cost
from prunegraph.ir.trace import Trace
from prunegraph.profiling.rehearsals import rehearse
from prunegraph.profiling.stopwatch import DeviceStopwatch, measured
from prunegraph.selection.widths import widths_for_speed
from prunegraph.timing import target_of, using_threads
from tests.zoo.networks import ZOO, reference_separators

RESULT = Path(__file__).parent / "results" / "speed.md"
ROWS = RESULT.with_suffix(".json")
THREADS = 2
MACS = 0.5
PROFILE_FOR, MEASURE_FOR, LEAST_ROUNDS = 8.0, 20.0, 5
OPS_FOR = 8.0
FORMS = ("eager", "optimized", "compiled")
SHOWN = ("uniform, round 8", "by time")
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Subject:
    """A network of the zoo, of its published size, and the inputs that it takes."""

    zoo_name: str
    sample_rate: int = 8000
    channels: tuple[int, ...] = (1, 1)

    def model(self) -> nn.Module:
        return next(n for n in (*ZOO, *reference_separators()) if n.name == self.zoo_name).build()[0]

    def example(self, seconds: float) -> Tensor:
        return torch.randn(*self.channels, round(seconds * self.sample_rate))


SUBJECTS = {
    "conv-tasnet": Subject("torchaudio-ConvTasNet"),
    "sudormrf": Subject("prunegraph-SuDoRMRF"),
    "dprnn": Subject("asteroid-DPRNNTasNet"),
    "afrcnn": Subject("prunegraph-AFRCNN"),
    "tdanet": Subject("prunegraph-TDANet", sample_rate=16000),
    "sepformer": Subject("speechbrain-SepFormer", channels=(1,)),
}


def plans(graph: DependencyGraph, fast: Mapping[str, int]) -> dict[str, PruningPlan]:
    """All of half of the MACs or a little less."""
    l1 = score(graph, "l1")
    return {
        "uniform, round 8": _uniform(graph, l1, 8),
        "uniform, round 16": _uniform(graph, l1, 16),
        "l1": select(graph, l1, Budget(macs=MACS)),
        "l1, round 16": select(graph, l1, Budget(macs=MACS, round_to=16)),
        "by time": select(graph, l1, Budget(ratio=0, pin=fast)),
    }


def _uniform(graph: DependencyGraph, scores: Mapping[str, Tensor], step: int) -> PruningPlan:
    """The widest plan with the same share of every group, rounded."""

    def plan(share: float) -> PruningPlan:
        return select(graph, scores, Budget(ratio=share, round_to=step))

    shares = np.arange(0.2, 0.6, 0.01).tolist()
    limit = MACS * graph.cost().macs
    return plan(shares[bisect_left(shares, True, key=lambda share: graph.cost(plan(share)).macs <= limit)])


def ratios(calls: Sequence[Callable[[], Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Times of the first call by those of each, in turns: of processors and by the wall; ``(calls, rounds)``.

    The last row of neither is a ratio: it holds the first call's seconds.
    """
    taken: list[list[tuple[float, float]]] = []
    with torch.inference_mode():
        for call in calls:
            call()
        started = time.perf_counter()
        while len(taken) < LEAST_ROUNDS or time.perf_counter() - started < MEASURE_FOR:
            taken.append([_both_clocks(call) for call in calls])
    processor, wall = np.array(taken).transpose(2, 1, 0)
    return tuple(np.concatenate([times[0] / times[1:], times[:1]]) for times in (processor, wall))  # type: ignore[return-value]


def _both_clocks(call: Callable[[], Any]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.process_time() - processor, time.perf_counter() - wall


def rows(name: str, seconds: float, form: str, networks: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """One row for each pruned network; the first of all is the dense one."""
    example = SUBJECTS[name].example(seconds)
    macs = {plan: recorded_cost(capture(network, example)).macs for plan, network in networks.items()}
    made = {plan: _in_form(form, network, example) for plan, network in networks.items()}
    calls = [call for call, _ in made.values()] + [networks["dense"]] * (form != "eager")
    processor, wall = ratios([lambda call=call: call(example) for call in calls])
    eager = 1.0 if form == "eager" else processor[-2]
    for number, plan in enumerate(list(networks)[1:]):
        yield {
            "network": name,
            "seconds": seconds,
            "form": form,
            "runs as": [made["dense"][1], made[plan][1]],
            "plan": plan,
            "macs": macs["dense"] / macs[plan],
            "processor": np.quantile(processor[number], [0.25, 0.5, 0.75]).tolist(),
            "wall": np.quantile(wall[number], [0.25, 0.5, 0.75]).tolist(),
            "in all": float(np.median(processor[number] / eager)),
            "dense ms": [1000 * float(np.median(times[-1])) for times in (processor, wall)],
            "rounds": processor.shape[1],
            "measured on": f"{target_of(CPU)}, threads wait {_waiting()}, {time.strftime('%Y-%m-%d', time.gmtime())}",
        }


def _waiting() -> str:
    return {"PASSIVE": "passively"}.get(os.environ.get("OMP_WAIT_POLICY", "").upper(), "actively")


def _in_form(form: str, network: nn.Module, example: Tensor) -> tuple[Callable[..., Any], str]:
    if form == "eager":
        return network, form
    fast = optimize(network, example, compiled=form == "compiled")
    return fast, f"{fast.form} on {fast.threads}"


def ops(
    name: str, model: nn.Module, graph: DependencyGraph, chosen: Mapping[str, PruningPlan]
) -> Iterator[dict[str, Any]]:
    """Processor time of each kind of op: in the dense network, and how much less in pruned ones."""
    example = SUBJECTS[name].example(1)
    found = {label: rehearse(model, graph, example, 1.0, plan) for label, plan in chosen.items()}
    real = {"dense": rehearse(model, graph, example, 1.0, graph.plan({})), **found}
    runs = {label: rehearsal for label, rehearsal in real.items() if rehearsal is not None}
    _, calls = measured(list(runs.values()), DeviceStopwatch(CPU, clock=time.process_time), OPS_FOR)
    of_calls = np.median(calls, axis=0)
    kinds: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(runs)))
    nodes = [node for node in graph.trace.graph.nodes if node.op == "call_function"]
    for node, times in zip(nodes, of_calls.T, strict=True):
        kinds[_kind(node, graph.trace)] += times
    for kind, times in sorted(kinds.items(), key=lambda item: -item[1][0])[:6]:
        faster = dict(zip(list(runs)[1:], (times[0] / times[1:]).tolist(), strict=True))
        yield {"network": name, "op": kind, "share": times[0] / of_calls[0].sum(), "faster": faster}


def _kind(node: fx.Node, trace: Trace) -> str:
    """The op, and for convolutions whether they mix channels and see more than one sample."""
    op = str(node.target).removeprefix("aten.").partition(".")[0]
    weight = trace.tensors.get(node.all_input_nodes[1].name) if len(node.all_input_nodes) > 1 else None
    if "conv" not in op or weight is None:
        return op
    if weight.shape[1] == 1 < weight.shape[0] and node.args[-1] == weight.shape[0]:
        return f"{op}, depthwise, {'k = 1' if weight.shape[-1] == 1 else 'k > 1'}"
    return f"{op}, {'pointwise' if weight.shape[-1] == 1 else 'other'}"


def _fast(model: nn.Module, example: Tensor, form: str) -> dict[str, int]:
    """Widths by a profile of the network in its form: an optimised network has groups of the same names."""
    fast = None if form == "eager" else optimize(model, example, compiled=False)
    network, threads = (model, THREADS) if fast is None else (fast.network, fast.threads)
    graph = build_graph(network, example)
    watch = DeviceStopwatch(CPU, clock=time.process_time)
    with using_threads(threads):
        timings = profile(network, example, graph, measure_for=PROFILE_FOR, stopwatch=watch)
    return widths_for_speed(graph, timings, macs=MACS, round_to=16)


def measure(name: str, lengths: Sequence[float], form: str) -> dict[str, list[dict[str, Any]]]:
    model, example = SUBJECTS[name].model(), SUBJECTS[name].example(1)
    graph = build_graph(model, example)
    chosen = plans(graph, _fast(model, example, form))
    if form != "eager":
        chosen = {label: plan for label, plan in chosen.items() if label in SHOWN}
    networks = {"dense": model, **{label: apply(model, plan).eval() for label, plan in chosen.items()}}
    speed = [row for seconds in lengths for row in rows(name, seconds, form, networks)]
    shown = {label: chosen[label] for label in SHOWN}
    return {"speed": speed, "ops": list(ops(name, model, graph, shown)) if form == "eager" else []}


def main() -> None:
    """Measures what is missing, or the networks that are named; writes the page after each network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--seconds", nargs="+", type=float, default=[1.0, 4.0])
    parser.add_argument("--form", choices=FORMS, default="eager")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    known: dict[str, list[dict[str, Any]]] = (
        json.loads(ROWS.read_text()) if ROWS.is_file() else {"speed": [], "ops": []}
    )
    for name in given.networks or list(SUBJECTS):
        done = {row["seconds"] for row in known["speed"] if (row["network"], row["form"]) == (name, given.form)}
        lengths = [seconds for seconds in given.seconds if given.networks or seconds not in done]
        if lengths:
            known = merged(known, measure(name, lengths, given.form))
            write_whole(ROWS, json.dumps(known, indent=1) + "\n")
            write_whole(RESULT, page(known))


def merged(
    known: Mapping[str, list[dict[str, Any]]], new: Mapping[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """New rows in place of those of the same network, length, form, and kind of waiting."""

    def what(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return row["network"], row.get("seconds"), row.get("form"), "passively" in row.get("measured on", "")

    replaced = {table: {what(row) for row in new[table]} for table in new}
    return {table: [row for row in known[table] if what(row) not in replaced[table]] + new[table] for table in new}


if __name__ == "__main__":
    main()
