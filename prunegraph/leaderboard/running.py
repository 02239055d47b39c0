"""Measuring many cells: one after the other, in several processes, or on a Ray cluster."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import parent_process
from typing import TypeAlias

from prunegraph.errors import InputError, PrunegraphError
from prunegraph.leaderboard.laboratory import Laboratory, torch_threads
from prunegraph.leaderboard.results import Quality
from prunegraph.leaderboard.study import Cell, Study
from prunegraph.optional_packages import import_optional

_GO_ON = "finished cells are kept: repeat the command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A cell and what was found out about it, or why that failed."""

    cell: Cell
    quality: Quality | None = None
    failure: str = ""


Runner: TypeAlias = Callable[[Laboratory, Sequence[Cell]], Iterator[Outcome]]
"""Measures cells, and yields them as they finish."""


def run_here(laboratory: Laboratory, cells: Sequence[Cell]) -> Iterator[Outcome]:
    """Measures one cell after the other in this process."""
    for cell in cells:
        yield _attempt(laboratory, cell)


def run_in_processes(laboratory: Laboratory, cells: Sequence[Cell], jobs: int) -> Iterator[Outcome]:
    """Measures cells in ``jobs`` processes, each of which opens the study for itself; yields them as they finish.

    Raises:
        InputError: the networks cannot be sent to other processes, or one of these was killed.
    """
    pickled, context = _pickled(laboratory.study), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker) as pool:
        waiting: list[Future[Outcome]] = [pool.submit(measure_pickled, pickled, cell) for cell in cells]
        try:
            for finished in as_completed(waiting):
                yield finished.result()
        except BrokenProcessPool as error:
            raise InputError(
                f"a process that measured a cell was killed, perhaps for want of memory; {_GO_ON}, with fewer jobs"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run_on_ray(laboratory: Laboratory, cells: Sequence[Cell]) -> Iterator[Outcome]:
    """Measures cells on the Ray cluster of ``RAY_ADDRESS``, by default a new one on this machine.

    Every machine of the cluster must see the networks and the speech under the same names. A cell takes as many CPUs
    as the study has threads and, on CUDA, a GPU.

    Raises:
        MissingPackageError: Ray is not installed.
        InputError: the networks cannot be sent to other processes, or the cluster failed.
    """
    ray = import_optional("ray", extra="cluster")
    study = laboratory.study
    pickled, mine = _pickled(study), not ray.is_initialized()
    if mine:
        ray.init(include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(num_cpus=study.threads, num_gpus=int(study.device.startswith("cuda")))(measure_pickled)
        waiting = [task.remote(pickled, cell) for cell in cells]
        while waiting:
            finished, waiting = ray.wait(waiting)
            yield from ray.get(finished)
    except ray.exceptions.RayError as error:
        raise InputError(f"the Ray cluster lost a cell ({one_line(error)}); {_GO_ON}") from error
    finally:
        if mine:
            ray.shutdown()


def measure_pickled(pickled: bytes, cell: Cell) -> Outcome:
    """Measures a cell of a pickled study, which is opened once in each process."""
    try:
        return _attempt(_laboratory(pickled), cell)
    except PrunegraphError as error:  # the study itself cannot be opened here
        return Outcome(cell=cell, failure=one_line(error))


@lru_cache(maxsize=1)
def _laboratory(pickled: bytes) -> Laboratory:
    return Laboratory(pickle.loads(pickled))


def _attempt(laboratory: Laboratory, cell: Cell) -> Outcome:
    """One cell that fails, in the code of a network or of a plug-in too, must not end the others."""
    try:
        with torch_threads(laboratory.study.threads):
            return Outcome(cell=cell, quality=laboratory.measure(cell))
    except Exception as error:
        return Outcome(cell=cell, failure=one_line(error))


def one_line(error: Exception) -> str:
    """Kind and message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _pickled(study: Study) -> bytes:
    try:
        return pickle.dumps(study)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(f"the study cannot be sent to other processes ({error}); run it in one") from error


def _begin_worker() -> None:
    """An interrupt ends a worker at once, and not only its cell; one whose parent was killed would wait forever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
