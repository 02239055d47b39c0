"""Two-speaker mixtures for criteria that look at data, shaped like the network's example."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from prunegraph.data.corpus import read_speaker_folder
from prunegraph.data.mixtures import MixtureSampler, MixtureSettings
from prunegraph.recovery.batches import mono_signal


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """Mixtures as the user asked for them.

    Attributes:
        folder: one sub-folder of audio per speaker.
        sample_rate: in Hz.
        batches: how many batches a criterion that looks at all of them sees.
        seed: which mixtures they are.
    """

    folder: Path
    sample_rate: int
    batches: int
    seed: int


class SpeechBatches:
    """The same batches of mixtures ``(batch, [1,] time)`` and sources ``(batch, 2, time)`` whenever gone through.

    Raises:
        InputError: the example is not one tensor of audio.
        DataError: the folder holds too little audio.
    """

    def __init__(self, request: SpeechRequest, example: Any) -> None:
        signal = mono_signal(example, "--speakers needs a network that takes")
        seconds = signal.shape[-1] / request.sample_rate
        settings = MixtureSettings(min_seconds=seconds, max_seconds=seconds)
        self._sampler = MixtureSampler(read_speaker_folder(request.folder, request.sample_rate), settings)
        self._request, self._example = request, signal

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = self._sampler.batches(self._request.seed, size=self._example.shape[0])
        for mixture, sources in itertools.islice(batches, self._request.batches):
            yield mixture.to(self._example).reshape(self._example.shape), sources.to(self._example)
