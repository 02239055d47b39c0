"""Libri2Mix, through torchaudio's data set class."""

from pathlib import Path
from typing import Literal, TypeAlias

from prunegraph.data.mixtures import Mode
from prunegraph.data.recorded import MixtureFiles, RecordedMixtures
from prunegraph.errors import DataError, InputError
from prunegraph.optional_packages import import_torchaudio

Subset: TypeAlias = Literal["train-360", "train-100", "dev", "test"]
Task: TypeAlias = Literal["sep_clean", "sep_noisy"]


def read_librimix(
    root: Path, subset: Subset, sample_rate: int = 8000, *, mode: Mode = "min", task: Task = "sep_clean"
) -> RecordedMixtures:
    """Finds the mixtures of one part of Libri2Mix; the audio is read when it is needed.

    Args:
        root: the folder that holds ``Libri2Mix``, as the scripts of LibriMix make it.
        subset: the part.
        sample_rate: 8000 or 16000 Hz.
        mode: ``min`` ends with the shorter utterance, ``max`` with the longer.
        task: two speakers, without or with noise.

    Raises:
        DataError: the part is not there.
        InputError: an option is none of the above.
        MissingPackageError: torchaudio is not installed.

    Reference:
        Cosentino et al., "LibriMix: An open-source dataset for generalizable speech separation", 2020.
    """
    if task not in ("sep_clean", "sep_noisy"):
        raise InputError(f"The task is 'sep_clean' or 'sep_noisy', not {task!r}.")
    librimix = import_torchaudio("torchaudio.datasets").LibriMix
    try:
        found = librimix(root, subset=subset, num_speakers=2, sample_rate=sample_rate, task=task, mode=mode)
    except ValueError as error:
        raise InputError(f"{error} LibriMix has 8000 and 16000 Hz, and the modes 'min' and 'max'.") from error
    except RuntimeError as error:
        raise DataError(f"{root} has no folder Libri2Mix; make it with the scripts of LibriMix.") from error
    if not len(found):
        raise DataError(
            f"{found.mix_dir} has no WAV files; make this part of Libri2Mix with the scripts of LibriMix, or ask for "
            "another sample rate, mode, task or subset."
        )
    # torchaudio would decode with a further package, and would not say which file is bad.
    return RecordedMixtures(
        (_files(found.root, *found.get_metadata(number)[1:]) for number in range(len(found))), sample_rate
    )


def _files(root: Path, mixture: str, sources: list[str]) -> MixtureFiles:
    """Utterances are named speaker-chapter-number, mixtures by the names of their utterances."""
    name = Path(mixture).stem
    people = tuple(utterance.partition("-")[0] for utterance in name.split("_"))
    return MixtureFiles(
        name=name,
        mixture=root / mixture,
        sources=tuple(root / source for source in sources),
        people=people if len(people) == len(sources) else (),
    )
