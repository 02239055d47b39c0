"""The table of a run: ours, and the paper's beside it."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.paper.journal import Journal, Stage, open_journal
from benchmarks.paper.protocol import DENSE, PRUNED, RECOVERED, SCRATCH
from benchmarks.paper.published import SEPARATORS, TABLE_2, Figures
from prunegraph.io.saved_network import read

HEADER = (
    "| network | parameters | MACs per s | epochs | SDRi, dB | SI-SDRi, dB | SI-SDRi of dense "
    "| epochs from scratch to this |\n|---|---|---|---|---|---|---|---|"
)


def table(folder: Path) -> str:
    """A run as a section of Markdown.

    Raises:
        InputError: the folder holds no run.
        FileFormatError: the pruned network of the run is damaged.
    """
    journal = open_journal(folder)
    lines = [f"## {journal.about['title']}", "", HEADER, *_ours(journal, folder), *_papers(journal), ""]
    return "\n".join([*lines, *_notes(journal)])


def _ours(journal: Journal, folder: Path) -> Iterator[str]:
    """A line for each network; of those from scratch the last."""
    saved = read(folder / PRUNED)
    scratch = [stage for stage in journal.stages if stage.name == SCRATCH]
    dense = journal.stages[0]
    for stage in [stage for stage in journal.stages if stage.name != SCRATCH] + scratch[-1:]:
        cost = saved.dense if stage.name == DENSE else saved.pruned
        share = stage.si_sdri.mean / dense.si_sdri.mean
        reached = _epochs_to(stage, scratch) if stage.name in RECOVERED and scratch else ""
        epochs = "" if stage.name == DENSE else str(stage.epochs)
        size = (_millions(cost.parameters), _giga(cost.macs), epochs)
        yield _line(stage.name, *size, str(stage.sdri), str(stage.si_sdri), f"{share:.1%}", reached)


def _epochs_to(stage: Stage, scratch: list[Stage]) -> str:
    """Epochs from scratch after which the level of a stage is reached."""
    reached = [other.epochs for other in scratch if other.si_sdri.mean >= stage.si_sdri.mean]
    return str(reached[0]) if reached else f"more than {scratch[-1].epochs}"


def _papers(journal: Journal) -> Iterator[str]:
    """The row of Table 2; beside the corpus, which has none, what one epoch gave on LRS2-2Mix."""
    separator, data = journal.about["separator"], journal.about["data"]
    if row := TABLE_2.get((separator, data)):
        yield _paper("dense", row.dense)
        yield _paper("pruned, to the end", row.pruned)
    if (row := TABLE_2.get((separator, "lrs2"))) and row.one_epoch and data in ("lrs2", "corpus"):
        size = (_millions(row.pruned.parameters), _giga(row.pruned.macs), "1")
        scores = (f"{row.one_epoch.sdri:.2f}", f"{row.one_epoch.si_sdri:.2f}")
        share = f"{row.one_epoch.si_sdri / row.dense.si_sdri:.1%}"
        yield _line("*paper, LRS2-2Mix: pruned*", *size, *scores, share, str(row.one_epoch.from_scratch))


def _paper(name: str, figures: Figures) -> str:
    size = (_millions(figures.parameters), _giga(figures.macs), "")
    return _line(f"*paper: {name}*", *size, f"{figures.sdri:.2f}", f"{figures.si_sdri:.2f}", "", "")


def _notes(journal: Journal) -> Iterator[str]:
    about = journal.about
    masks = f", {about['mask_steps']} steps of masks" if about["criterion"].startswith("sepprune") else ""
    yield (
        f"{about['speech'].capitalize()}; {about['sample_rate']} Hz. Criterion {about['criterion']}{masks}, "
        f"budget {about['budget']}, {about['batch']} mixture(s) of {about['seconds']:g} s in a step, "
        f"compensation on {about['compensation']:g} s, seed {about['seed']}."
    )
    if about["separator"] in SEPARATORS:
        yield "The paper's MACs charge the transposed convolution of the decoder at its output rate; ours do not."


def _millions(count: float) -> str:
    return f"{count / 1e6:.2f} M"


def _giga(macs: float) -> str:
    return f"{macs / 1e9:.2f} G" if macs > 1e9 else f"{macs / 1e6:.1f} M"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
