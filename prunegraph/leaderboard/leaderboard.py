"""`run_study`: measures what a folder lacks of a study, and gathers all that it holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prunegraph.errors import CriterionError
from prunegraph.leaderboard.admission import Admission, admit
from prunegraph.leaderboard.laboratory import Laboratory
from prunegraph.leaderboard.results import Quality, Row, Timing, rows_of
from prunegraph.leaderboard.running import Runner, one_line, run_here
from prunegraph.leaderboard.store import Store
from prunegraph.leaderboard.study import Cell, Study
from prunegraph.leaderboard.timing import time_cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """What came of a study.

    Attributes:
        rows: one for each cell that is finished.
        failures: cell -> why it could not be measured.
        refused: network and criterion -> why the criterion cannot serve the network.
    """

    rows: tuple[Row, ...]
    failures: Mapping[Cell, str]
    refused: Mapping[tuple[str, str], tuple[str, ...]]


def run_study(
    study: Study,
    folder: Path,
    *,
    run: Runner = run_here,
    insist: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Leaderboard:
    """Measures the cells of a study that the folder does not hold yet, first all qualities, then all timings.

    Every finished cell is kept at once and not measured again unless the source of its criterion changes, so that the
    call can be repeated after it was interrupted or killed, with more networks, criteria, budgets and seeds, or with a
    criterion that was worked on. While networks are timed nothing else
    runs, whatever ran the cells.

    Args:
        study: what to measure.
        folder: of the results; made if need be.
        run: measures the cells: in this process, in several, on a cluster.
        insist: whether a criterion that cannot serve a network is an error, and not only left out.
        tell: is told of each step in one line.

    Raises:
        InputError: the folder holds something else, or results under other conditions.
        CriterionError: a criterion is not installed, or with ``insist`` cannot serve a network.
        PrunegraphError: a network or the speech cannot be opened.
    """
    laboratory = Laboratory(study)
    admission = admit(laboratory)
    if insist and admission.refused:
        (network, criterion), reasons = next(iter(admission.refused.items()))
        raise CriterionError(f"criterion {criterion!r} cannot serve {network}: {'; '.join(reasons)}")
    store = Store(folder, admission.conditions, admission.code)
    cells = _admitted(study, admission)
    qualities, failures = _qualities(laboratory, store, cells, run, tell)
    timings, failed = _timings(laboratory, store, qualities, tell)
    return Leaderboard(rows=rows_of(qualities, timings), failures={**failures, **failed}, refused=admission.refused)


def _admitted(study: Study, admission: Admission) -> tuple[Cell, ...]:
    return tuple(cell for cell in study.cells() if (cell.network, cell.criterion) not in admission.refused)


def _qualities(
    laboratory: Laboratory, store: Store, cells: Sequence[Cell], run: Runner, tell: Callable[[str], None]
) -> tuple[Mapping[Cell, Quality], Mapping[Cell, str]]:
    kept = {cell: store.find("qualities", cell, Quality.from_json) for cell in cells}
    found = {cell: quality for cell, quality in kept.items() if quality is not None}
    failures: dict[Cell, str] = {}
    pending = [cell for cell in cells if cell not in found]
    tell(f"{len(cells)} cells, {len(found)} of them finished before")
    for outcome in run(laboratory, pending) if pending else ():
        if outcome.quality is None:
            failures[outcome.cell] = outcome.failure
        else:
            found[outcome.cell] = outcome.quality
            store.keep("qualities", outcome.cell, asdict(outcome.quality))
        tell(f"{len(found) + len(failures)} of {len(cells)}: {outcome.cell}: {_summary(outcome.quality)}")
    return {cell: found[cell] for cell in cells if cell in found}, failures


def _summary(quality: Quality | None) -> str:
    if quality is None:
        return "failed"
    return ", ".join(f"{stage} {mean.mean:.2f} dB" for stage, mean in quality.si_sdri.items())


def _timings(
    laboratory: Laboratory, store: Store, qualities: Mapping[Cell, Quality], tell: Callable[[str], None]
) -> tuple[Mapping[Cell, Timing], Mapping[Cell, str]]:
    kept = {cell: store.find("timings", cell, lambda document: Timing(**document)) for cell in qualities}
    found = {cell: timing for cell, timing in kept.items() if timing is not None}
    failures: dict[Cell, str] = {}
    for cell in (cell for cell in qualities if cell not in found):
        tell(f"timing {len(found) + len(failures) + 1} of {len(qualities)}: {cell}")
        try:
            found[cell] = time_cell(laboratory, cell, qualities[cell])
        except Exception as error:  # the network's own code may raise anything
            failures[cell] = f"timing it failed: {one_line(error)}"
        else:
            store.keep("timings", cell, asdict(found[cell]))
    return found, failures
