"""The commands: each reads what the user typed, calls the library, and shows what came of it."""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from prunegraph.cli import documents, tables
from prunegraph.cli.network import NetworkRequest, floating_dtype, open_network, parse_kwargs, parse_shapes
from prunegraph.cli.shell import Stages, note, output, print_json, working
from prunegraph.cli.speech import (
    LibriMix,
    Manifests,
    MixtureName,
    SampleRate,
    Speakers,
    SpeechBatches,
    SpeechRequest,
    UseCorpus,
    check_speech,
    open_speech,
)
from prunegraph.errors import InputError
from prunegraph.graph import DependencyGraph, build_graph
from prunegraph.importance.scoring import Scoring
from prunegraph.io.checking import verify_saved
from prunegraph.io.saved_network import read
from prunegraph.io.saving import save
from prunegraph.ir.budget import Budget
from prunegraph.ir.latency import LatencyProfile
from prunegraph.pipeline import prune_in_stages
from prunegraph.plugin.manager import create_manager, find_criterion, load_criteria, load_op_rules
from prunegraph.recovery.losses import pit_si_sdr_loss

app = typer.Typer(
    name="prunegraph",
    help="Prunes the channels of any PyTorch separation network, unedited, and proves the result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Network = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        help="package.module:factory or path/to/file.py:factory; the factory returns a torch.nn.Module, or a pair "
        "(module, example inputs).",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Weights: .safetensors, or .pt/.pth with a state dict or a {'state_dict': ...}."),
]
Kwargs = Annotated[str | None, typer.Option(help="""Keyword arguments of the factory as JSON: '{"n_src": 2}'.""")]
InputShape = Annotated[
    list[str] | None,
    typer.Option(help="Shape of an example input, as 1,1,8000; repeat it for networks with several inputs."),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON, instead of tables.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The only source of randomness.")]
Top = Annotated[int, typer.Option(min=0, help="Rows to show of each table; 0 shows all.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prunegraph {version('prunegraph')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Prunes the channels of any PyTorch separation network, unedited, and proves the result."""


@app.command()
def inspect(
    network: Network,
    checkpoint: Checkpoint = None,
    kwargs: Kwargs = None,
    input_shape: InputShape = None,
    graphml: Annotated[Path | None, typer.Option(help="Write the dependency graph to this GraphML file.")] = None,
    top: Top = 20,
    as_json: Json = False,
) -> None:
    """Show what a network costs, which channels can go together, and what is locked and why."""
    request = network_request(network, checkpoint, kwargs, input_shape)
    with working():
        check_file(graphml)
        model, example = open_network(request)
        with Stages().stage("recording and analysing"):
            graph = build_graph(model, example)
        if graphml is not None:
            _write_graphml(graph, graphml)
    if as_json:
        print_json(documents.inspection(network, graph))
    else:
        tables.show_inspection(output(), type(model).__name__, graph, top)


@app.command()
def prune(  # noqa: PLR0913 - one parameter per option
    network: Network,
    checkpoint: Checkpoint = None,
    kwargs: Kwargs = None,
    input_shape: InputShape = None,
    macs: Annotated[
        float | None, typer.Option(help="MACs that may stay: a share (0.5), or a number.", rich_help_panel="Budget")
    ] = None,
    params: Annotated[
        float | None,
        typer.Option(help="Parameters that may stay: a share (0.5), or a number.", rich_help_panel="Budget"),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(help="Milliseconds that a forward pass may take, by --profile.", rich_help_panel="Budget"),
    ] = None,
    rtf: Annotated[
        float | None,
        typer.Option(help="Real-time factor that may stay, by --profile.", rich_help_panel="Budget"),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="What prunegraph profile wrote, on the target.", rich_help_panel="Budget")
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(help="Share of channels to remove from every group, instead.", rich_help_panel="Budget"),
    ] = None,
    round_to: Annotated[
        int, typer.Option(help="Make widths that shrink multiples of this.", rich_help_panel="Budget")
    ] = 1,
    min_width: Annotated[int, typer.Option(help="Leave no group narrower than this.", rich_help_panel="Budget")] = 1,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Prune only groups that match this pattern; repeatable.", rich_help_panel="Budget"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Leave groups that match this pattern whole; repeatable.", rich_help_panel="Budget"),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(help="'pattern=width': the width of the groups that match; repeatable.", rich_help_panel="Budget"),
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            help="What tells important channels; see: prunegraph plugins. "
            "By default sepprune where there is speech to learn from, and l1 otherwise.",
            show_default=False,
        ),
    ] = None,
    speakers: Speakers = None,
    corpus: UseCorpus = False,
    librimix: LibriMix = None,
    manifests: Manifests = None,
    mixture: MixtureName = None,
    sample_rate: SampleRate = 8000,
    batches: Annotated[
        int,
        typer.Option(
            min=1,
            help="Batches for criteria that look at data: two-speaker mixtures as long as the input, as many as its "
            "batch, and permutation-invariant SI-SDR.",
            rich_help_panel="Speech",
        ),
    ] = 100,
    state: Annotated[
        Path | None,
        typer.Option(
            help="File in which a long scoring keeps its state, and from which it goes on.", rich_help_panel="Speech"
        ),
    ] = None,
    seed: Seed = 0,
    destination: Annotated[
        Path | None, typer.Option("--output", help="Directory to save the result in; without it, nothing is saved.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result in the output directory.")] = False,
    top: Top = 20,
    as_json: Json = False,
) -> None:
    """Remove the channels that a network can do without, prove the result, and save it."""
    request = network_request(network, checkpoint, kwargs, input_shape, seed)
    if macs is params is latency_ms is rtf is ratio is None:
        raise typer.BadParameter("give --macs, --params, --latency-ms or --rtf, or --ratio", param_hint="the budget")
    pins = _pins(pin or [])
    asked = SpeechRequest(
        speakers=speakers,
        corpus=corpus,
        librimix=librimix,
        manifests=manifests,
        mixture=mixture,
        sample_rate=sample_rate,
    )
    with working():
        budget = Budget(
            macs=macs,
            params=params,
            latency_ms=latency_ms,
            rtf=rtf,
            ratio=ratio,
            round_to=round_to,
            min_width=min_width,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            pin=pins,
        )
        if asked.sources:
            check_speech(asked)
        default = "sepprune" if asked.sources else "l1"
        chosen = find_criterion(default if criterion is None else criterion)
        _check_free(destination, force)
        timings = None if profile is None else LatencyProfile.load(profile)
        model, example = open_network(request)
        data = SpeechBatches(open_speech(asked), example, count=batches, seed=seed) if asked.sources else None
        loss = None if data is None else pit_si_sdr_loss
        stages = Stages()
        scoring = Scoring(criterion=chosen, data=data, loss=loss, seed=seed, progress=stages.progress, checkpoint=state)
        result = prune_in_stages(model, example, budget, scoring, stage=stages.stage, profile=timings)
        saved_to = None if destination is None else str(save(result, destination))
    if as_json:
        print_json(documents.pruning(network, result, saved_to))
        return
    console = output()
    tables.show_pruning(console, result.report, top)
    console.print(f"saved to {saved_to}" if saved_to else "nothing was saved; give --output to save the result")
    if checkpoint is None:
        note("no --checkpoint was given: these are the weights that the factory made")


@app.command("verify")
def verify_command(
    network: Network,
    directory: Annotated[Path, typer.Argument(help="What prune or prunegraph.save wrote.", show_default=False)],
    checkpoint: Checkpoint = None,
    kwargs: Kwargs = None,
    input_shape: InputShape = None,
    as_json: Json = False,
) -> None:
    """Prove a saved result against the dense network, also after fine-tuning."""
    request = network_request(network, checkpoint, kwargs, input_shape)
    with working():
        dtype = floating_dtype(read(directory).state.tensors)
        model, example = open_network(request, dtype)
        with Stages().stage("verifying"):
            saved, report = verify_saved(model, directory, example)
    if as_json:
        print_json(documents.verified(network, str(directory), report))
        return
    tables.show_checks(output(), report)
    cost = saved.pruned.macs / max(saved.dense.macs, 1), saved.pruned.parameters / max(saved.dense.parameters, 1)
    output().print(
        f"{directory} holds {type(model).__name__} with {cost[0]:.1%} of its MACs, {cost[1]:.1%} of its parameters"
    )


@app.command()
def plugins(as_json: Json = False) -> None:
    """List the installed importance criteria and rules for operators, and the plug-ins that offer them."""
    with working():
        manager = create_manager()
        criteria = load_criteria(manager)
        load_op_rules(manager)  # refuses what cannot be used
        scored: Sequence[Any] = manager.hook.prunegraph_criteria.get_hookimpls()
        owners: dict[str, str] = {found.name: offer.plugin_name for offer in scored for found in offer.function()}
        ruled: Sequence[Any] = manager.hook.prunegraph_op_rules.get_hookimpls()
        rules: dict[str, str] = {str(op): offer.plugin_name for offer in ruled for op in offer.function()}
    if as_json:
        print_json(documents.plugins(criteria, owners, rules))
    else:
        tables.show_plugins(output(), criteria, owners, rules)


def network_request(
    network: str, checkpoint: Path | None, kwargs: str | None, shapes: Sequence[str] | None, seed: int = 0
) -> NetworkRequest:
    """The network as the user typed it."""
    return NetworkRequest(
        target=network,
        kwargs=parse_kwargs(kwargs),
        checkpoint=checkpoint,
        shapes=parse_shapes(shapes or ()),
        seed=seed,
    )


def check_file(file: Path | None) -> None:
    """Looks at where a file is to be written, before any work.

    Raises:
        InputError: there is no such directory, or the name is a directory's.
    """
    if file is not None and file.is_dir():
        raise InputError(f"{file} is a directory; give the name of a file")
    if file is not None and not file.parent.is_dir():
        raise InputError(f"there is no directory {file.parent} for {file.name}")
    if file is not None:
        _check_writable(file.parent)


def _pins(texts: Sequence[str]) -> Mapping[str, int]:
    pins = {}
    for text in texts:
        pattern, _, width = text.rpartition("=")
        if not pattern or not width.strip().isdecimal():
            raise typer.BadParameter(f"{text!r}: expected 'pattern=width', as in 'encoder.*=64'", param_hint="--pin")
        pins[pattern] = int(width)
    return pins


def _check_free(directory: Path | None, force: bool) -> None:
    """Before any work, so that none is lost."""
    if directory is not None and os.path.lexists(directory) and not force:
        raise InputError(f"{directory} exists already; give another --output, or --force to replace an earlier result")
    if directory is not None:
        _check_writable(next(parent for parent in directory.absolute().parents if parent.exists()))


def _check_writable(directory: Path) -> None:
    if not os.access(directory, os.W_OK):
        raise InputError(f"nothing can be written to {directory}: its permissions do not allow it")


def _write_graphml(graph: DependencyGraph, file: Path) -> None:
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    try:
        graph.to_graphml(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
