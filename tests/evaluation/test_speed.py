import pytest
import torch
from torch import Tensor, nn

from prunegraph.errors import InputError
from prunegraph.evaluation.speed import measure_speed
from prunegraph.timing import device_name


class Recorder(nn.Module):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.seen: set[tuple] = set()

    def forward(self, signal: Tensor) -> Tensor:
        self.seen.add((tuple(signal.shape), signal.dtype, self.training, torch.is_inference_mode_enabled()))
        return self.weight * signal


@pytest.mark.parametrize(("dims", "shape"), [(2, (1, 4000)), (3, (1, 1, 4000))])
def test_the_network_runs_on_one_signal_of_the_asked_length(dims: int, shape: tuple[int, ...]) -> None:
    network = Recorder().train()
    speed = measure_speed(network, 8000, seconds=0.5, measure_for=0.01, input_dims=dims)
    assert network.seen == {(shape, torch.float64, False, True)}
    assert network.training
    assert speed.seconds == 0.5
    assert speed.runs >= 1
    assert 0 < speed.latency <= speed.latency_p95
    assert speed.real_time_factor == pytest.approx(2 * speed.latency)
    assert (speed.device, speed.threads) == (device_name(torch.device("cpu")), torch.get_num_threads())


@pytest.mark.parametrize("options", [{"seconds": 0}, {"seconds": -1}, {"measure_for": 0}])
def test_impossible_durations_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match="must be positive"):
        measure_speed(Recorder(), 8000, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_is_named() -> None:
    speed = measure_speed(Recorder().cuda(), 8000, seconds=0.5, measure_for=0.01)
    assert speed.device == torch.cuda.get_device_name()
