import csv
import math
import statistics
from pathlib import Path

import pytest
import torch

from prunegraph.data.mixtures import Mixture
from prunegraph.errors import DataError, InputError
from prunegraph.evaluation.intervals import mean_interval
from prunegraph.evaluation.metrics import METRICS
from prunegraph.evaluation.separation import evaluate
from prunegraph.recovery.losses import si_sdr, si_sdr_improvement
from tests.evaluation.separators import RATE, Answer, Oracle, mixtures


def test_a_row_for_each_mixture_and_means_with_intervals() -> None:
    heard = mixtures()
    network = Oracle(heard, leak=0.2)
    result = evaluate(network, heard, RATE, metrics=tuple(METRICS))
    assert [row.name for row in result.scores] == ["0", "mixture1", "mixture2"]
    assert [row.seconds for row in result.scores] == [1.5] * 3
    assert list(result.means) == ["si_sdr", "si_sdri", "sdr", "sdri", "pesq", "stoi"]
    for name, interval in result.means.items():
        assert interval == mean_interval([row.values[name] for row in result.scores])
        assert interval.count == 3


def test_speakers_are_assigned_and_improvements_are_over_the_mixture() -> None:
    heard = mixtures()
    network = Oracle(heard, leak=0.2)
    result = evaluate(network, heard, RATE)
    with torch.no_grad():
        for row, mixture in zip(result.scores, heard, strict=True):
            signal, sources = mixture.mixture[None, None].double(), mixture.sources[None].double()
            estimates = network(mixture.mixture[None, None]).double()
            assert row.values["si_sdr"] == pytest.approx(si_sdr(estimates, sources).item(), abs=1e-3)
            expected = si_sdr_improvement(estimates, sources, signal).item()
            assert row.values["si_sdri"] == pytest.approx(expected, abs=1e-3)
            measure = METRICS["sdr"].make(RATE)
            unprocessed = measure(signal[0].expand(2, -1), sources[0]).mean()
            assert row.values["sdr"] - row.values["sdri"] == pytest.approx(unprocessed.item(), abs=1e-6)


def test_the_mixture_itself_is_no_improvement() -> None:
    result = evaluate(Answer(lambda signal: signal.expand(1, 2, -1)), mixtures(), RATE)
    assert result.means["si_sdri"].mean == pytest.approx(0, abs=1e-6)
    assert result.means["sdri"].mean == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_networks_with_and_without_a_channel_dimension(dims: int) -> None:
    heard = mixtures()
    result = evaluate(Oracle(heard, dims=dims), heard, RATE, metrics=["si_sdr"], input_dims=dims)
    assert result.means["si_sdr"].mean > 60


def test_outputs_with_a_channel_dimension() -> None:
    heard = mixtures(2)
    oracle = Oracle(heard)
    result = evaluate(Answer(lambda signal: oracle(signal).unsqueeze(2)), heard, RATE, metrics=["si_sdr"])
    assert result.means["si_sdr"].mean > 60


def test_networks_in_another_precision() -> None:
    heard = tuple(
        Mixture(mixture=m.mixture.bfloat16().float(), sources=m.sources, name=m.name) for m in mixtures(2, noise=0.0)
    )
    result = evaluate(Oracle(heard).bfloat16(), heard, RATE, metrics=["si_sdr"])
    assert 30 < result.means["si_sdr"].mean < 70


def test_evaluation_mode_is_on_meanwhile_and_the_flags_stay() -> None:
    modes: list[bool] = []
    network = Answer(lambda signal: modes.append(network.training) or signal.expand(1, 2, -1))
    network.frozen = torch.nn.Dropout()
    network.train().frozen.eval()
    evaluate(network, mixtures(2), RATE, metrics=["si_sdr"])
    assert modes == [False, False]
    assert (network.training, network.frozen.training) == (True, False)


def test_no_gradients_are_kept() -> None:
    grads: list[bool] = []
    network = Answer(lambda signal: grads.append(signal.requires_grad) or signal.expand(1, 2, -1))
    evaluate(network, mixtures(2), RATE, metrics=["si_sdr"])
    assert grads == [False, False]


def test_progress_counts_the_mixtures() -> None:
    counted: list[tuple[int, int]] = []
    network = Answer(lambda signal: signal.expand(1, 2, -1))
    evaluate(network, mixtures(), RATE, metrics=["si_sdr"], progress=lambda *numbers: counted.append(numbers))
    assert counted == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda signal: (signal,), "returned tuple"),
        (lambda signal: signal, r"shape \(1, 1, 12000\) for mixture 0, expected is \(1, 2, 12000\)"),
        (lambda signal: signal.expand(1, 3, -1), r"shape \(1, 3, 12000\)"),
        (lambda signal: signal.expand(1, 2, -1)[..., :-4], r"shape \(1, 2, 11996\)"),
        (lambda signal: signal.expand(1, 2, -1).transpose(1, 2), r"shape \(1, 12000, 2\)"),
        (lambda signal: signal.expand(1, 2, -1) / 0, "NaN or infinite samples for mixture 0"),
    ],
)
def test_what_is_no_estimate_is_refused_with_the_mixture(answer, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Answer(answer), mixtures(2), RATE)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metrics": ["snr"]}, "No metric is named 'snr'; there are si_sdr, sdr, pesq, stoi"), ({}, "at least 2")],
)
def test_impossible_requests_are_refused_before_any_work(options: dict, message: str) -> None:
    def never(signal: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the network ran")

    with pytest.raises(InputError, match=message):
        evaluate(Answer(never), mixtures(2 if options else 1), RATE, **options)


def test_a_silent_source_is_refused_by_name() -> None:
    first, second = mixtures(2)
    silent = Mixture(mixture=second.mixture, sources=second.sources * torch.tensor([[1.0], [0.0]]), name="quiet")
    with pytest.raises(DataError, match="mixture quiet is silent"):
        evaluate(Answer(lambda signal: signal.expand(1, 2, -1)), (first, silent), RATE)


def test_the_csv_has_a_row_for_each_mixture_and_empty_fields_for_what_is_undefined(tmp_path: Path) -> None:
    heard = (*mixtures(2), *(mixtures(3, seconds=0.05)[2:]))
    result = evaluate(Oracle(heard, leak=0.2), heard, RATE, metrics=["si_sdr", "stoi"])
    result.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mixture"] for row in rows] == ["0", "mixture1", "mixture2"]
    assert list(rows[0]) == ["mixture", "seconds", "si_sdr", "si_sdri", "stoi"]
    assert statistics.fmean(float(row["si_sdri"]) for row in rows) == pytest.approx(
        result.means["si_sdri"].mean, abs=1e-3
    )
    assert math.isnan(result.scores[2].values["stoi"])
    assert rows[2]["stoi"] == ""
    assert result.means["stoi"].count == 2
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_a_csv_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").mkdir()
    result = evaluate(Answer(lambda signal: signal.expand(1, 2, -1)), mixtures(2), RATE, metrics=["si_sdr"])
    with pytest.raises(OSError, match=r"scores\.csv"):
        result.write_csv(tmp_path / "scores.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_the_gpu_scores_the_same() -> None:
    heard = mixtures(2)
    on_cpu = evaluate(Oracle(heard, leak=0.2), heard, RATE, metrics=tuple(METRICS))
    on_gpu = evaluate(Oracle(heard, leak=0.2).cuda(), heard, RATE, metrics=tuple(METRICS))
    for name, interval in on_cpu.means.items():
        assert on_gpu.means[name].mean == pytest.approx(interval.mean, abs=0.02)
