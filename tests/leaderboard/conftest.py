"""A study of a moment: one small network, three synthetic speakers, a few steps."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from prunegraph.data.corpus import read_speaker_folder
from prunegraph.data.speech import CorpusSpeech
from prunegraph.leaderboard.study import Effort, Entrant, Study
from tests.data.speakers import write_speakers
from tests.leaderboard.networks import separator

QUICK = Effort(
    seconds=0.5, batch=2, batches=2, compensation_batches=2, steps=2, mixtures=3, learning_rate=1e-3, timing_s=0.02
)


def _speech(speakers: Path) -> CorpusSpeech:
    return CorpusSpeech(read_speaker_folder(speakers, 8000))


def opened() -> Any:
    """The same network each time."""
    torch.manual_seed(0)
    return separator()


@pytest.fixture(scope="session")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speakers(tmp_path_factory.mktemp("speech") / "speakers", speakers=2, clips=14, seconds=2.2)


@pytest.fixture
def study(speakers: Path) -> Callable[..., Study]:
    """Makes the study with some fields changed."""
    base = Study(
        entrants=(Entrant(name="small", open=opened),),
        speech=partial(_speech, speakers),
        criteria=("l1",),
        budgets=(0.5,),
        effort=QUICK,
    )
    return lambda **changes: replace(base, **changes)
