"""The committed tables."""

from collections.abc import Iterator, Sequence

from benchmarks.peers.apart import LIMIT_S, Outcome
from benchmarks.peers.libraries import LIBRARIES, NNI_LAYERS, PRUNEGRAPH, RATIO, TORCH_PRUNING
from benchmarks.peers.quality import CLOSENESS, MASK_STEPS, SHARE, TEST_MIXTURES, TUNING_BATCH, TUNING_STEPS, Quality
from benchmarks.peers.record import Record
from benchmarks.result_files import markdown_table
from benchmarks.zoo.subjects import NETWORKS

NAMES = tuple(library.name for library in LIBRARIES)

SETTINGS = f"""
Every library is asked for the same: L1 magnitudes, a ratio of {RATIO} in each group, on an example of batch 1 with
random weights. The others are told which layers make the output and leave those alone; prunegraph finds them. Nothing
else is adapted to a network. Each network and library is a process of its own, one thread, that ends after {LIMIT_S} s
of processor time; the library has pruned a stack of convolutions and the network has run once before. *right*: the
pruned network runs, and equals in float64 the dense network with its removed channels set to zero, norm statistics
switched off in both, to 1e-6. Where attention is scaled by its own width zeros prove nothing; there prunegraph's result
is compared with its exact masked program, and it is named under *What went wrong or is particular*. *groups*: seconds
of processor time to find what is coupled (`build_graph`; the construction of Torch-Pruning's `MagnitudePruner`
or of NNI's `ModelSpeedup`). *pruning*: choosing and removing channels (`score`, `select` and `apply`; `step`;
`speedup_model`), without the verification that `prunegraph.prune` adds. *memory*: how far both together raise the
resident memory of the process. *parameters*: those left.

Torch-Pruning runs as `MagnitudePruner` with `MagnitudeImportance(p=1)`. NNI runs as `L1NormPruner` on the layers
{", ".join(NNI_LAYERS)}, then `ModelSpeedup`. Its own tracer raises `AttributeError: 'NoneType' object has no attribute
'startswith'` (`concrete_tracer.py`) even on a stack of convolutions, so that the graph of `torch.fx.symbolic_trace` is
handed to it, as its documentation advises: the stack is then pruned.
"""

QUALITY = f"""
The trained separators of this repository, to {SHARE:.0%} of their MACs, which prunegraph counts for all;
Torch-Pruning's ratio is bisected until they are within {CLOSENESS:.0%}. What it does with only the output layer ignored
is said first; it is therefore also told to leave alone the encoder and the layer that makes the masks, whose widths the
code reads as attributes. prunegraph prunes those too. SI-SDRi on {TEST_MIXTURES} mixtures of utterances never trained
on; fine-tuning: {TUNING_STEPS} steps of `recover` on {TUNING_BATCH} mixtures each, the same for all. `sepprune` learns
its masks in {MASK_STEPS} steps on data, which the other criteria do not see. One seed.
"""


def markdown(record: Record) -> str:
    """All of the file."""
    parts = [
        "# Beside other libraries",
        markdown_table(("library", "version", ""), presences(record)),
        "## The zoo",
        markdown_table(("network", *NAMES), statuses(record)),
        "## Time and memory",
        markdown_table(("network", *(f"{f}: {n}" for f in FIGURES for n in SIDES)), figures(record)),
        SETTINGS,
        "## What went wrong or is particular",
        markdown_table(("network", "library", "", ""), failures(record)),
        *(_quality(record.qualities) if record.qualities else ()),
        f"{record.machine}. Written by `{record.command}`.",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _quality(found: Sequence[Quality]) -> Sequence[str]:
    head = ("network", "pruned by", "MACs", "parameters", "pruned", "fine-tuned")
    return "## Quality at equal MACs", markdown_table(head, qualities(found)), QUALITY


def presences(record: Record) -> Iterator[Sequence[str]]:
    """Which libraries could be used, and how many networks they prune rightly."""
    for presence in record.presences:
        outcomes = record.of(presence.pruner).values()
        right = f"{sum(outcome.status == 'right' for outcome in outcomes)} of {len(outcomes)} networks right"
        yield presence.pruner, presence.version, presence.problem or right


def statuses(record: Record) -> Iterator[Sequence[str]]:
    """What became of each network."""
    unusable = {presence.pruner: presence.problem.partition(":")[0] for presence in record.presences}
    found = {name: record.of(name) for name in NAMES}
    for network in (network.name for network in NETWORKS):
        yield network, *(_status(found[name].get(network), unusable.get(name, "")) for name in NAMES)


def _status(outcome: Outcome | None, problem: str) -> str:
    return outcome.status if outcome else problem or "not run"


SIDES = (PRUNEGRAPH.name, TORCH_PRUNING.name)
FIGURES = {"groups": "groups_s", "pruning": "pruning_s", "memory": "peak_mb", "parameters": "parameters"}
FORMATS = {"groups_s": "{:.2f} s", "pruning_s": "{:.2f} s", "peak_mb": "{} MB", "parameters": "{:.1%}"}


def figures(record: Record) -> Iterator[Sequence[str]]:
    """Time, memory and size, side by side; empty where a library did not come so far."""
    found = [record.of(name) for name in SIDES]
    for network in (network.name for network in NETWORKS):
        outcomes = [side.get(network) for side in found]
        yield network, *(_figure(outcome, name) for name in FIGURES.values() for outcome in outcomes)


def _figure(outcome: Outcome | None, name: str) -> str:
    value = None if outcome is None else getattr(outcome, name)
    return "" if value is None else FORMATS[name].format(value)


def failures(record: Record) -> Iterator[Sequence[str]]:
    """The error, or the difference, of each network that is not right, and how else it was proved."""
    for outcome in sorted(record.outcomes, key=lambda outcome: (_place(outcome), outcome.network)):
        if outcome.detail or outcome.status != "right":
            detail = outcome.detail or f"differs by {outcome.difference}"
            yield outcome.network, outcome.pruner, outcome.status, detail.replace("__", r"\_\_")


def _place(outcome: Outcome) -> int:
    return NAMES.index(outcome.pruner)


def qualities(found: Sequence[Quality]) -> Iterator[Sequence[str]]:
    """The separators, in the order in which they were measured."""
    for one in found:
        if one.problem:
            yield one.network, one.pruning, one.problem, "", "", ""
        else:
            shares = (f"{share:.1%}" for share in (one.macs, one.parameters) if share is not None)
            levels = ("" if level is None else f"{level:.2f} dB" for level in (one.pruned, one.tuned))
            yield one.network, one.pruning, *shares, *levels
