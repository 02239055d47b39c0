"""Before any work: which criteria can serve which network, and what the networks and the speech are."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from prunegraph.capture.clone import named_tensors
from prunegraph.graph import build_graph
from prunegraph.importance.gradients import BatchGradients
from prunegraph.importance.moments import InputMoments
from prunegraph.ir.budget import Budget
from prunegraph.leaderboard.laboratory import Laboratory, Separator
from prunegraph.leaderboard.study import DENSE, SCRATCH
from prunegraph.masked.program import MaskedNetwork
from prunegraph.plugin.contracts import Criterion, CriterionContext, refusals
from prunegraph.plugin.manager import find_criterion
from prunegraph.recovery.losses import pit_si_sdr_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What was found out about a study before any work.

    Attributes:
        conditions: all that decides the result of a cell, by name: the study's, and checksums of weights and speech.
        code: criterion -> checksum of its source, where that is known.
        refused: network and criterion -> why the criterion cannot serve the network.
    """

    conditions: Mapping[str, str | int | float]
    code: Mapping[str, str]
    refused: Mapping[tuple[str, str], tuple[str, ...]]


def admit(laboratory: Laboratory) -> Admission:
    """Opens each network once and asks each criterion.

    Raises:
        PrunegraphError: a network cannot be opened or recorded, or a criterion is not installed.
    """
    study = laboratory.study
    conditions = {**study.conditions(), "speech": laboratory.speech.fingerprint()}
    refused: dict[tuple[str, str], tuple[str, ...]] = {}
    for entrant in study.entrants:
        separator = laboratory.open(entrant.name)
        conditions[f"weights of {entrant.name}"] = _weights_digest(separator)
        for criterion, reasons in _refusals(laboratory, separator).items():
            refused[entrant.name, criterion] = reasons
    criteria = dict.fromkeys(cell.criterion for cell in study.cells() if cell.criterion not in (DENSE, SCRATCH))
    code = {name: _source_digest(find_criterion(name)) for name in criteria}
    return Admission(conditions=conditions, code=code, refused=refused)


def _refusals(laboratory: Laboratory, separator: Separator) -> Mapping[str, tuple[str, ...]]:
    """Criterion -> why it cannot serve the network, for those that cannot."""
    study, data = laboratory.study, [next(laboratory.batches(separator, 0))]
    graph = build_graph(separator.network, data[0][0])
    context = CriterionContext(
        gradients=BatchGradients(graph=graph, data=data, loss=pit_si_sdr_loss),
        moments=InputMoments(graph=graph, data=data),
        data=data,
        loss=pit_si_sdr_loss,
        masked_program=MaskedNetwork(separator.network, graph),
        budget=Budget(macs=min(study.budgets)),
    )
    reasons = {name: refusals(find_criterion(name), graph, context) for name in study.criteria}
    return {name: why for name, why in reasons.items() if why}


def _source_digest(criterion: Criterion) -> str:
    """Changes with the module that defines the criterion, and with those beside it if it lies in a package."""
    module = sys.modules[type(criterion).__module__]
    if module.__file__ is None:
        return ""
    file, digest = Path(module.__file__), hashlib.sha256()
    for source in sorted(file.parent.glob("*.py")) if module.__package__ else [file]:
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _weights_digest(separator: Separator) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(named_tensors(separator.network).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
