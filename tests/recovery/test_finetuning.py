from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from prunegraph.errors import DataError, InputError
from prunegraph.recovery.finetuning import FineTuningSettings, fine_tune
from prunegraph.recovery.losses import pit_si_sdr_loss


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 8, 9, padding=4), nn.Dropout(0.0), nn.Conv1d(8, 2, 9, padding=4)).eval()


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    """A slow and a fast tone in varying phase: one filter each tells them apart."""
    generator = torch.Generator().manual_seed(0)
    while True:
        phase = 6.28 * torch.rand(4, 2, 1, generator=generator)
        sources = torch.sin(torch.arange(256) * torch.tensor([[0.05], [1.5]]) + phase)
        yield sources.sum(1, keepdim=True), sources


def test_the_loss_falls_and_the_original_stays() -> None:
    network, losses = _network(), []
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tuned = fine_tune(
        network,
        _batches(),
        FineTuningSettings(steps=60, learning_rate=1e-2),
        progress=lambda _, loss: losses.append(loss),
    )
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 5
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [module.training for module in tuned.modules()] == [False] * 4


def test_the_same_batches_give_the_same_weights() -> None:
    first, second = (fine_tune(_network(), _batches(), FineTuningSettings(steps=5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_teacher_is_followed_and_stays_as_it_is() -> None:
    """The sources are silent but for noise, which says nothing; what the teacher makes of the mixture says all."""
    torch.manual_seed(1)
    teacher, network = _network(), _network()
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter)
    before = [parameter.clone() for parameter in teacher.parameters()]
    noise = ((mixture, torch.randn_like(sources)) for mixture, sources in _batches())
    tuned = fine_tune(network, noise, FineTuningSettings(steps=60, learning_rate=1e-2), teacher=teacher)
    mixture, _ = next(_batches())
    assert pit_si_sdr_loss(tuned(mixture), teacher(mixture)) < pit_si_sdr_loss(network(mixture), teacher(mixture)) - 5
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_batches_that_end_early_are_reported() -> None:
    with pytest.raises(DataError, match="after 3 of 5"):
        fine_tune(_network(), islice(_batches(), 3), FineTuningSettings(steps=5))


def test_a_loss_that_is_not_finite_stops_at_its_step() -> None:
    batches = ((mixture * float("nan"), sources) for mixture, sources in _batches())
    with pytest.raises(InputError, match="nan at step 1"):
        fine_tune(_network(), batches)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"clip_norm": -1.0}])
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="positive"):
        FineTuningSettings(**wrong)  # type: ignore[arg-type]
