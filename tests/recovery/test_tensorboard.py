import sys
from pathlib import Path

import pytest

from prunegraph.errors import InputError
from prunegraph.recovery.settings import Check
from prunegraph.recovery.tensorboard import tensorboard_log


def test_the_log_can_be_read_again(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tensorboard_log(tmp_path) as log:
        for step in (5, 10):
            log(Check(step=step, loss=-step / 2, validation=None if step == 5 else -3.5, learning_rate=0.25))
    found = accumulator.EventAccumulator(str(tmp_path)).Reload()
    values = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert values == {
        "loss": [(5, -2.5), (10, -5.0)],
        "validation": [(10, -3.5)],
        "learning_rate": [(5, 0.25), (10, 0.25)],
    }


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"prunegraph\[tensorboard\]"), tensorboard_log(tmp_path):
        pass
