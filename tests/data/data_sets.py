"""Writers of small data sets of recorded mixtures, as their scripts lay them out."""

import json
from pathlib import Path

from tests.data.bad_files import good

SAMPLES = 8000


def write_librimix(root: Path, mixtures: int = 3) -> Path:
    """Libri2Mix at 8 kHz, ``min``, without noise: ``train-100``, ``dev`` and ``test``."""
    for place, part in enumerate(("train-100", "dev", "test")):
        for number, track in enumerate(("mix_clean", "s1", "s2")):
            folder = root / "Libri2Mix" / "wav8k" / "min" / part / track
            folder.mkdir(parents=True)
            for item in range(mixtures):
                pitch = 80 + 40 * number + 7 * item + 3 * place
                good(folder / f"{place}{item}-1-1_{place}{item}5-1-1.wav", pitch=pitch, samples=SAMPLES)
    return root


def write_manifests(root: Path, mixtures: int = 3) -> Path:
    """Manifests in ``tr``, ``cv`` and ``tt``, and the audio that they list."""
    for place, part in enumerate(("tr", "cv", "tt")):
        for number, track in enumerate(("mix_both", "mix_clean", "s1", "s2")):
            folder = root / part / track
            folder.mkdir(parents=True)
            pitches = [80 + 40 * number + 7 * item + 3 * place for item in range(mixtures)]
            files = [good(folder / f"{p}.wav", pitch=p, samples=SAMPLES) for p in pitches]
            (root / part / f"{track}.json").write_text(json.dumps([[str(path), SAMPLES] for path in files]))
    return root
