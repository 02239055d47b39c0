"""What the protocol is run on: a published separator on its data, or a small one on the corpus."""

import json
from pathlib import Path
from pkgutil import resolve_name

from torch import nn

import prunegraph
from benchmarks import separators
from benchmarks.paper.protocol import Subject
from benchmarks.paper.published import DATA, SEPARATORS, TABLE_2
from benchmarks.paper.speech import SAMPLE_RATE, Speech
from prunegraph.cli.network import NetworkRequest, open_network
from prunegraph.errors import InputError
from prunegraph.recovery.losses import pit_si_sdr_loss, pit_snr_loss

DEFAULT_MACS = 0.5


def published(separator: str, data: str, checkpoint: Path | None, speech: Speech, *, criterion: str) -> Subject:
    """A row of Table 2: the published network, pruned in the paper's channels to the paper's number of parameters.

    Args:
        separator: a key of `SEPARATORS`.
        data: a key of `DATA`.
        checkpoint: weights of the dense network; without any they are random.
        speech: mixtures at 16 kHz.
        criterion: with ``sepprune-epsilon`` the threshold decides what stays, not the paper's size.

    Raises:
        InputError: the checkpoint cannot be read, or does not fit.
    """
    network = SEPARATORS[separator]
    request = NetworkRequest(
        target=network.factory, kwargs={}, checkpoint=checkpoint, shapes=((1, 1, SAMPLE_RATE),), seed=0
    )
    dense = open_network(request)[0].eval()
    return Subject(
        about={"title": f"{network.title} on {DATA[data]}", "separator": separator, "data": data},
        dense=dense,
        untrained=resolve_name(network.factory),
        budget=row_budget(separator, data, criterion),
        loss=pit_snr_loss,
        speech=speech,
    )


def row_budget(separator: str, data: str, criterion: str) -> prunegraph.Budget:
    """The paper's channels, down to the paper's number of parameters or to what the threshold leaves."""
    groups = SEPARATORS[separator].groups
    if criterion == "sepprune-epsilon":
        return prunegraph.Budget(threshold=0.0, include=groups)
    return prunegraph.Budget(params=TABLE_2[separator, data].pruned.parameters, include=groups)


def small(weights: Path, speech: Speech, *, macs: float | None) -> Subject:
    """A small separator that was trained on the corpus.

    Args:
        weights: as `benchmarks.train_separator` exports them, settings beside them.
        speech: mixtures at 8 kHz.
        macs: share of the MACs that may stay. By default a network of the paper is pruned in the paper's channels to
            the paper's share of parameters on LRS2-2Mix, and any other to half of its MACs.

    Raises:
        InputError: the settings beside the weights name no separator.
        OSError: there are no such weights.
    """
    settings = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    name = settings.get("separator")
    if name not in separators.SEPARATORS:
        known = ", ".join(separators.SEPARATORS)
        raise InputError(f"{weights.with_suffix('.json')} names the separator {name!r}; there are {known}")

    def untrained() -> nn.Module:
        return separators.SEPARATORS[name].build(**settings["network"])

    return Subject(
        about={"title": f"{name}, small, on the corpus", "separator": name, "data": "corpus"},
        dense=separators.load_separator(weights),
        untrained=untrained,
        budget=small_budget(name, macs),
        loss=pit_si_sdr_loss,
        speech=speech,
    )


def small_budget(name: str, macs: float | None) -> prunegraph.Budget:
    if macs is not None or name not in SEPARATORS:
        return prunegraph.Budget(macs=macs or DEFAULT_MACS)
    row = TABLE_2[name, "lrs2"]
    share = row.pruned.parameters / row.dense.parameters
    return prunegraph.Budget(params=round(share, 3), include=SEPARATORS[name].groups)
