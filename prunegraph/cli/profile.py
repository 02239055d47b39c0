"""``prunegraph profile``: what a network's ops take on this device."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from prunegraph.capture.example import normalise_example
from prunegraph.cli.commands import Checkpoint, InputShape, Json, Kwargs, Network, check_file, network_request
from prunegraph.cli.network import open_network
from prunegraph.cli.shell import Stages, note, output, print_json, working
from prunegraph.cli.tables import show_profile, show_rounding
from prunegraph.errors import InputError
from prunegraph.graph import build_graph
from prunegraph.profiling.rounding import measure_rounding
from prunegraph.profiling.whole import profile

_DOUBTFUL = 0.1
"""Relative error of the table above which the user is told."""


def profile_command(  # noqa: PLR0913 - one parameter per option
    network: Network,
    checkpoint: Checkpoint = None,
    kwargs: Kwargs = None,
    input_shape: InputShape = None,
    sample_rate: Annotated[
        int | None, typer.Option(min=1, help="Of the network, in Hz: for budgets of a real-time factor.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the network is going to run: cpu or cuda.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch on the CPU, as the network will have them.")
    ] = None,
    cuda_graphs: Annotated[bool, typer.Option("--cuda-graphs", help="Run the network as one CUDA graph.")] = False,
    seconds: Annotated[float, typer.Option(help="How long to measure, for each of the two tables.")] = 20.0,
    destination: Annotated[
        Path | None, typer.Option("--output", help="JSON file for prunegraph prune --profile.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier file of that name.")] = False,
    as_json: Json = False,
) -> None:
    """Measure what a network's ops take on this device, so that prune can meet a latency."""
    request = network_request(network, checkpoint, kwargs, input_shape)
    if threads is not None:
        torch.set_num_threads(threads)
    with working():
        check_file(destination)
        if destination is not None and destination.exists() and not force:
            raise InputError(f"{destination} exists already; give another --output, or --force to replace it")
        model, example = open_network(request)
        model, example = model.to(_device(device)), _moved(example, _device(device))
        stages = Stages()
        with stages.stage("recording and analysing"):
            graph = build_graph(model, example)
        with stages.stage("timing ops"):
            found = profile(
                model, example, graph, sample_rate=sample_rate, cuda_graphs=cuda_graphs, measure_for=seconds
            )
        with stages.stage("timing rounded widths"):
            rounding = measure_rounding(model, example, graph, measure_for=seconds)
        if destination is not None:
            found.save(destination)
    if as_json:
        print_json(
            {"profile": asdict(found), "rounding": asdict(rounding), "saved_to": destination and str(destination)}
        )
        return
    show_profile(output(), found)
    show_rounding(output(), rounding)
    output().print(f"saved to {destination}" if destination else "nothing was saved; give --output to save the table")
    if found.greatest_error > _DOUBTFUL:
        note("the table misses what it was made from: measure longer, and let nothing else run beside it")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} is no device; expected cpu or cuda") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"there is no device {name} on this machine that prunegraph can time; try cpu")
    return device


def _moved(example: Any, device: torch.device) -> tuple[Any, ...] | dict[str, Any]:
    nested = normalise_example(example)
    args, kwargs = nested.rebuild([tensor.to(device) for tensor in nested.tensors])
    return dict(kwargs) if kwargs else tuple(args)
