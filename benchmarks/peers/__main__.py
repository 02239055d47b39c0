"""prunegraph and other libraries on every network of the zoo, and on trained separators at equal MACs.

    python -m benchmarks.peers                     # what has not been measured yet, and the tables
    python -m benchmarks.peers --anew              # everything
    python -m benchmarks.peers --network demucs-Demucs --packages FOLDER

Each measurement is kept in ``benchmarks/results/peers.json`` when it is done. NNI and OTO need packages that prunegraph
does not: install them into folders of their own, ``pip install --no-deps --target FOLDER nni``, and name those.
"""

import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.peers.apart import look_for, run_apart
from benchmarks.peers.libraries import LIBRARIES
from benchmarks.peers.quality import SEPARATORS, measure_network
from benchmarks.peers.record import RESULTS, Record, read_record, write_record
from benchmarks.peers.table import markdown
from benchmarks.result_files import write_whole
from benchmarks.separators import SAMPLE_RATE
from benchmarks.zoo.subjects import NETWORKS
from prunegraph.data.corpus import split_by_utterance
from prunegraph.data.debian import load_debian_corpus


def machine() -> str:
    """Processor, versions and date."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    processor = model[1] if model else platform.machine()
    python = platform.python_version()
    return f"{processor}, one thread, Python {python}, torch {torch.__version__}, {date.today().isoformat()}"


def measure_zoo(record: Record, packages: list[Path], chosen: list[str]) -> Iterator[Record]:
    """The record after each outcome that it lacks, or that was asked for."""
    usable = [presence.pruner for presence in record.presences if not presence.problem]
    for network in (network.name for network in NETWORKS):
        for library in usable:
            if network in chosen or (not chosen and network not in record.of(library)):
                outcome = run_apart(library, network, packages)
                record = record.with_outcome(outcome)
                typer.echo(f"{network}, {library}: {outcome.status} {outcome.detail}", err=True)
                yield record


def measure_quality(record: Record) -> Iterator[Record]:
    """The record after each separator that it lacks."""
    missing = [name for name in SEPARATORS if name not in {one.network for one in record.qualities}]
    if not missing:
        return
    torch.set_num_threads(1)
    split = split_by_utterance(load_debian_corpus(SAMPLE_RATE, progress=lambda text: typer.echo(text, err=True)))
    for name in missing:
        record = record.with_quality(list(measure_network(name, split)))
        typer.echo(f"{name}: {record.qualities}", err=True)
        yield record


def main(
    network: Annotated[list[str], typer.Option(help="Measure only these of the zoo, again.")] = [],  # noqa: B006
    packages: Annotated[list[Path], typer.Option(help="Folder with further libraries.")] = [],  # noqa: B006
    anew: Annotated[bool, typer.Option("--anew", help="Forget what was measured before.")] = False,
) -> None:
    """Measures what is missing and writes the tables."""
    if unknown := set(network) - {one.name for one in NETWORKS}:
        raise typer.BadParameter(f"not in the zoo: {', '.join(sorted(unknown))}")
    record = Record() if anew else read_record()
    found = tuple(look_for(library.name, packages) for library in LIBRARIES)
    record = replace(record, machine=machine(), presences=found)
    for stage in (lambda r: measure_zoo(r, packages, network), measure_quality):
        for record in stage(record):  # noqa: B020
            write_record(record)
    write_record(record)
    write_whole(RESULTS / "peers.md", markdown(record))


if __name__ == "__main__":
    typer.run(main)
