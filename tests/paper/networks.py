"""Small networks and data sets for the protocol."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from prunegraph.models import SuDoRMRF
from prunegraph.models.torchaudio_models import conv_tasnet
from tests.data.bad_files import good

CONV_TASNET = {"kernel": 16, "filters": 16, "hidden": 16, "bottleneck": 8, "layers": 2, "stacks": 1}
TRACKS = ("mix", "s1", "s2")
RATE = 16_000


def tiny_sudormrf() -> SuDoRMRF:
    """3,597 parameters, of which each of the 32 channels in its two blocks has 45."""
    return SuDoRMRF(out_channels=8, in_channels=16, num_blocks=2, upsampling_depth=3, enc_num_basis=16)


def write_weights(folder: Path) -> Path:
    """Weights of a small Conv-TasNet with the settings beside them."""
    torch.manual_seed(7)  # not the seed of a run
    weights = folder / "separator.safetensors"
    save_file(conv_tasnet(**CONV_TASNET).state_dict(), weights)
    weights.with_suffix(".json").write_text(json.dumps({"separator": "conv-tasnet", "network": CONV_TASNET}))
    return weights


def write_manifests(folder: Path, parts: tuple[str, str, str] = ("tr", "cv", "tt"), count: int = 3) -> Path:
    """Three parts as the recipe of LRS2-2Mix lays them out: mixtures of 1.1 s at 16 kHz."""
    samples = round(1.1 * RATE)
    for place, part in enumerate(parts):
        for number, track in enumerate(TRACKS):
            wavs = folder / "wav" / part / track
            wavs.mkdir(parents=True)
            files = [wavs / f"{i}.wav" for i in range(count)]
            for i, file in enumerate(files):
                good(file, pitch=80 + 40 * number + 10 * i + place, rate=RATE, samples=samples)
            (folder / part).mkdir(exist_ok=True)
            (folder / part / f"{track}.json").write_text(json.dumps([[str(file), samples] for file in files]))
    return folder


def write_libri2mix(folder: Path, count: int = 2) -> Path:
    """``folder/Libri2Mix`` as the scripts of LibriMix lay it out: min mode, 16 kHz."""
    for subset in ("train-100", "dev", "test"):
        for number, track in enumerate(("mix_clean", "s1", "s2")):
            place = folder / "Libri2Mix" / "wav16k" / "min" / subset / track
            place.mkdir(parents=True)
            for i in range(count):
                name = f"{10 + i}-1-1_{20 + i}-2-2.wav"
                good(place / name, pitch=80 + 40 * number + i, rate=RATE, samples=round(1.1 * RATE))
    return folder
