"""What is measured is the same wherever it runs, and fits what the library says elsewhere."""

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunegraph.data.corpus import read_speaker_folder, split_by_utterance
from prunegraph.data.mixtures import MixtureSampler, MixtureSettings
from prunegraph.errors import InputError
from prunegraph.evaluation.separation import evaluate
from prunegraph.leaderboard.laboratory import Laboratory, bytes_of
from prunegraph.leaderboard.results import Quality
from prunegraph.leaderboard.running import _begin_worker, run_here, run_in_processes, run_on_ray
from prunegraph.leaderboard.study import Cell, Entrant
from prunegraph.leaderboard.timing import activation_peak, time_cell
from prunegraph.timing import device_name
from tests.leaderboard.conftest import opened
from tests.leaderboard.networks import flat, stereo


def qualities(outcomes: Any) -> dict[Cell, Quality]:
    """Without the time that scoring took, which differs."""
    return {outcome.cell: replace(outcome.quality, scoring_s=None) for outcome in outcomes}


def failing() -> Any:
    raise RuntimeError("no such\nfile")


def test_every_recovery_is_measured_and_the_dense_network_as_it_is(study, speakers: Path) -> None:
    laboratory = Laboratory(study())
    found = {cell.criterion: quality for cell, quality in qualities(run_here(laboratory, study().cells())).items()}
    stages = {name: set(quality.si_sdri) for name, quality in found.items()}
    every = {"pruned", "compensated", "tuned", "both"}
    assert stages == {"dense": {"pruned"}, "l1": every, "random": every, "scratch": {"tuned"}}
    corpus = split_by_utterance(read_speaker_folder(speakers, 8000)).test
    test = MixtureSampler(corpus, MixtureSettings()).fixed(0, 3)
    assert found["dense"].si_sdri["pruned"] == evaluate(opened()[0], test, 8000).means["si_sdri"]
    assert 0.45 < found["l1"].macs_share <= 0.5
    assert found["scratch"].parameters == found["l1"].parameters
    assert found["dense"].weight_bytes == 4 * found["dense"].parameters


def test_figures_are_the_same_in_this_process_and_in_others(study) -> None:
    laboratory = Laboratory(study())
    cells = study().cells()
    here = qualities(run_here(laboratory, cells))
    assert qualities(run_in_processes(laboratory, cells[1:3], jobs=1)).items() <= here.items()


def test_figures_are_the_same_on_a_ray_cluster(study) -> None:
    ray = pytest.importorskip("ray")
    laboratory = Laboratory(study())
    cells = study().cells()[1:2]
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        found = qualities(run_on_ray(laboratory, cells))
    finally:
        ray.shutdown()
    assert found == qualities(run_here(laboratory, cells))


def test_seeds_differ(study) -> None:
    laboratory = Laboratory(study())
    cells = [Cell(network="small", criterion="random", budget=0.5, seed=seed) for seed in (0, 1)]
    first, second = qualities(run_here(laboratory, cells)).values()
    assert first.plan != second.plan


def test_a_cell_that_fails_does_not_end_the_others(study) -> None:
    broken = study(entrants=(Entrant(name="broken", open=failing), *study().entrants), recoveries=("compensated",))
    outcomes = {outcome.cell.network: outcome for outcome in run_here(Laboratory(broken), broken.cells()[:2])}
    assert outcomes["broken"].failure == "RuntimeError: no such file"
    assert outcomes["small"].quality is not None


def test_an_interrupt_ends_a_worker_and_not_only_its_cell() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_begin_worker) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_DFL


def test_what_cannot_be_sent_to_processes_is_told(study) -> None:
    local = study(entrants=(Entrant(name="small", open=lambda: opened()),))
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        list(run_in_processes(Laboratory(local), local.cells(), jobs=2))


def test_networks_without_a_channel_dimension_are_measured(study) -> None:
    asked = study(entrants=(Entrant(name="flat", open=flat),), recoveries=("compensated",))
    laboratory = Laboratory(asked)
    (outcome,) = run_here(laboratory, asked.cells()[1:2])
    assert outcome.failure == ""
    assert time_cell(laboratory, outcome.cell, outcome.quality).latency_ms > 0


def test_networks_that_take_no_mono_signal_are_refused(study) -> None:
    with pytest.raises(InputError, match="pair must take one mono signal"):
        Laboratory(study(entrants=(Entrant(name="pair", open=stereo),))).open("pair")


def test_a_timing_is_of_the_pruned_network(study) -> None:
    laboratory = Laboratory(study(recoveries=("compensated",)))
    (outcome,) = run_here(laboratory, study().cells()[1:2])
    pruned = time_cell(laboratory, outcome.cell, outcome.quality)
    dense = time_cell(laboratory, outcome.cell, replace(outcome.quality, plan=None))
    assert pruned.peak_memory_bytes < dense.peak_memory_bytes
    assert pruned.rtf == pytest.approx(pruned.latency_ms / 4000)
    assert (pruned.threads, pruned.timed_on) == (1, device_name(torch.device("cpu")))


def test_the_peak_of_memory_is_that_of_values_alive_together() -> None:
    """Of three activations of 4,000 bytes two are alive at a time; the second network keeps the first, too."""

    class Keeping(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self[0](x)
            out: torch.Tensor = self[2](self[1](first))
            return out + first

    layers = nn.ReLU(), nn.Tanh(), nn.ReLU()
    signal = torch.randn(1, 1, 1000)
    assert activation_peak(nn.Sequential(*layers), signal) == 2 * 4000
    assert activation_peak(Keeping(*layers), signal) == 3 * 4000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cells_are_measured_on_cuda(study) -> None:
    asked = study(device="cuda")
    laboratory = Laboratory(asked)
    outcomes = {outcome.cell.criterion: outcome for outcome in run_here(laboratory, asked.cells())}
    assert [outcome.failure for outcome in outcomes.values()] == ["", "", "", ""]
    timing = time_cell(laboratory, outcomes["l1"].cell, outcomes["l1"].quality)
    assert timing.timed_on == torch.cuda.get_device_name()
    assert timing.peak_memory_bytes > outcomes["l1"].quality.weight_bytes


def test_tied_weights_count_once() -> None:
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    network[1].weight = network[0].weight
    assert bytes_of(network) == 4 * 16
