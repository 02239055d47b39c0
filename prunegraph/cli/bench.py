"""``prunegraph bench``: the leaderboard of criteria."""

import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer

from prunegraph.cli.commands import InputShape, Json
from prunegraph.cli.leaderboard_table import show_leaderboard
from prunegraph.cli.network import NetworkRequest, find_device, open_network, parse_shapes
from prunegraph.cli.shell import note, output, print_json, working
from prunegraph.cli.speech import (
    LibriMix,
    Manifests,
    MixtureName,
    SampleRate,
    Speakers,
    SpeechRequest,
    UseCorpus,
    check_speech,
    open_speech,
)
from prunegraph.errors import InputError
from prunegraph.leaderboard.files import write_tables
from prunegraph.leaderboard.leaderboard import Leaderboard, run_study
from prunegraph.leaderboard.plot import draw_pareto
from prunegraph.leaderboard.running import Runner, run_here, run_in_processes, run_on_ray
from prunegraph.leaderboard.study import RECOVERIES, Effort, Entrant, Recovery, Study
from prunegraph.optional_packages import import_optional
from prunegraph.plugin.manager import create_manager, load_criteria

Value = TypeVar("Value")


def bench_command(  # noqa: PLR0913 - one parameter per option
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="NETWORK...",
            help="[NAME=]package.module:factory[,checkpoint=FILE], or path/to/file.py:factory; the factory returns a "
            "torch.nn.Module, or a pair (module, example inputs).",
            show_default=False,
        ),
    ],
    folder: Annotated[Path, typer.Option("--output", help="Folder of the results; an earlier run there goes on.")],
    input_shape: InputShape = None,
    speakers: Speakers = None,
    corpus: UseCorpus = False,
    librimix: LibriMix = None,
    manifests: Manifests = None,
    mixture: MixtureName = None,
    sample_rate: SampleRate = 8000,
    seconds: Annotated[
        float, typer.Option(help="Duration of mixtures to learn from.", rich_help_panel="Speech")
    ] = Effort().seconds,
    batch: Annotated[int, typer.Option(min=1, help="Mixtures in a batch.", rich_help_panel="Speech")] = Effort().batch,
    count: Annotated[
        int, typer.Option(min=2, help="Test mixtures, of utterances never learned from.", rich_help_panel="Speech")
    ] = Effort().mixtures,
    criteria: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between; by default all that are installed and can serve; see: prunegraph plugins.",
            show_default=False,
            rich_help_panel="Cells",
        ),
    ] = None,
    macs: Annotated[
        str, typer.Option(help="Shares of the MACs that may stay, with commas between.", rich_help_panel="Cells")
    ] = "0.5",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.", rich_help_panel="Cells")] = 1,
    recoveries: Annotated[
        str,
        typer.Option(
            help="How quality is brought back: compensated in closed form, tuned for some steps, or both.",
            rich_help_panel="Cells",
        ),
    ] = ",".join(RECOVERIES),
    batches: Annotated[
        int, typer.Option(min=1, help="Batches that a criterion may look at.", rich_help_panel="Effort")
    ] = Effort().batches,
    compensation: Annotated[
        int, typer.Option(min=1, help="Batches for the closed-form compensation.", rich_help_panel="Effort")
    ] = Effort().compensation_batches,
    steps: Annotated[int, typer.Option(min=1, help="Of fine-tuning.", rich_help_panel="Effort")] = Effort().steps,
    learning_rate: Annotated[
        float, typer.Option(help="Of Adam; it falls linearly to zero.", rich_help_panel="Effort")
    ] = Effort().learning_rate,
    timing: Annotated[
        float, typer.Option(help="Seconds for which each network is timed.", rich_help_panel="Effort")
    ] = Effort().timing_s,
    jobs: Annotated[int, typer.Option(min=1, help="Processes on this machine.", rich_help_panel="Machines")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each.", rich_help_panel="Machines")] = 1,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="Measure on the Ray cluster of RAY_ADDRESS, or a local one.", rich_help_panel="Machines"
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu or cuda; by default cuda where there is one.", show_default=False, rich_help_panel="Machines"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare criteria on equal terms: the same budget, data, seeds and fine-tuning for each, beside three controls."""
    shapes = parse_shapes(input_shape or ())
    asked = SpeechRequest(
        speakers=speakers and speakers.resolve(),
        corpus=corpus,
        librimix=librimix and librimix.resolve(),
        manifests=manifests and manifests.resolve(),
        mixture=mixture,
        sample_rate=sample_rate,
    )
    with working():
        check_speech(asked)
        for package in ("pyarrow", "matplotlib", *(["ray"] if ray else [])):
            import_optional(package, extra="cluster" if package == "ray" else "bench")
        study = Study(
            entrants=tuple(parse_entrant(text, shapes) for text in networks),
            speech=partial(open_speech, asked),
            criteria=_listed(criteria, str, "--criteria") if criteria else tuple(load_criteria(create_manager())),
            budgets=_listed(macs, float, "--macs"),
            seeds=tuple(range(seeds)),
            effort=Effort(
                seconds=seconds,
                batch=batch,
                batches=batches,
                compensation_batches=compensation,
                steps=steps,
                learning_rate=learning_rate,
                mixtures=count,
                timing_s=timing,
            ),
            recoveries=_listed(recoveries, _recovery, "--recoveries"),
            device=str(find_device(device)),
            threads=threads,
        )
        found = run_study(study, folder, run=_runner(ray, jobs), insist=criteria is not None, tell=note)
        files = _written(found, folder)
    if as_json:
        print_json(_document(found))
    elif found.rows:
        show_leaderboard(output(), found.rows)
        output().print(f"\nwritten: {', '.join(map(str, files))}")
    for (network, criterion), reasons in found.refused.items():
        note(f"left out: {criterion} cannot serve {network}: {'; '.join(reasons)}")
    for cell, reason in found.failures.items():
        note(f"failed: {cell}: {reason}")
    if found.failures:
        raise typer.Exit(1)


def parse_entrant(text: str, shapes: tuple[tuple[int, ...], ...]) -> Entrant:
    """Reads ``[NAME=]package.module:factory[,checkpoint=FILE]``.

    Raises:
        InputError: it is something else.
    """
    head, *options = text.split(",")
    name, _, target = head.rpartition("=")
    given = dict(option.partition("=")[::2] for option in options)
    checkpoint = given.pop("checkpoint", None)
    if given or checkpoint == "" or ":" not in target:
        raise InputError(f"{text!r} names no network; expected [NAME=]package.module:factory[,checkpoint=FILE]")
    name = name or re.split(r"[:.]", target)[-1]
    file = None if checkpoint is None else Path(checkpoint).resolve()
    request = NetworkRequest(target=target, kwargs={}, checkpoint=file, shapes=shapes)
    return Entrant(name=name, open=partial(open_network, request))


def _listed(text: str, parse: Callable[[str], Value], option: str) -> tuple[Value, ...]:
    try:
        return tuple(dict.fromkeys(parse(part.strip()) for part in text.split(",")))
    except ValueError as error:
        raise InputError(f"{option} {text!r} cannot be read: {error}") from error


def _recovery(text: str) -> Recovery:
    if text not in RECOVERIES:
        raise ValueError(f"{text!r} is none of {', '.join(RECOVERIES)}")
    return text


def _runner(ray: bool, jobs: int) -> Runner:
    if ray:
        return run_on_ray
    return run_here if jobs == 1 else partial(run_in_processes, jobs=jobs)


def _written(found: Leaderboard, folder: Path) -> tuple[Path, ...]:
    if not found.rows:
        return ()
    files = (*write_tables(found.rows, folder), folder / "pareto.png")
    draw_pareto(found.rows, files[-1])
    return files


def _document(found: Leaderboard) -> dict[str, Any]:
    return {
        "prunegraph": version("prunegraph"),
        "torch": torch.__version__,
        "rows": [asdict(row) for row in found.rows],
        "failures": [{**asdict(cell), "reason": reason} for cell, reason in found.failures.items()],
        "refused": [
            {"network": network, "criterion": criterion, "reasons": list(reasons)}
            for (network, criterion), reasons in found.refused.items()
        ],
    }
