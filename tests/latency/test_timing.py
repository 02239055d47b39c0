"""Calls run in turns, warm and without gradients."""

import pytest
import torch

from prunegraph import InputError
from prunegraph.timing import device_name, interleaved, target_of

CPU = torch.device("cpu")


def test_calls_run_in_turns_after_a_first_round() -> None:
    seen: list[str] = []
    times = interleaved([lambda: seen.append("a"), lambda: seen.append("b")], CPU, measure_for=1e-9)
    assert seen == ["a", "b"] * 4
    assert [len(taken) for taken in times] == [3, 3]
    assert all(taken >= 0 for by_call in times for taken in by_call)


def test_no_gradients_are_recorded() -> None:
    seen: list[bool] = []
    interleaved([lambda: seen.append(torch.is_inference_mode_enabled())], CPU, measure_for=1e-9)
    assert set(seen) == {True}


def test_a_time_that_is_not_positive_is_refused() -> None:
    with pytest.raises(InputError, match="must be positive"):
        interleaved([lambda: None], CPU, measure_for=0)


def test_the_target_names_device_threads_and_version() -> None:
    target = target_of(CPU)
    assert (target.threads, target.torch, target.cuda_graphs) == (torch.get_num_threads(), torch.__version__, False)
    assert target.device == device_name(CPU)
    assert str(target).startswith(f"{target.device}, {target.threads} thread")
