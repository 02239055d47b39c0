"""What the exact masked program buys: the same masks, learned on it and on ordinary zero-masks, at equal MACs.

    python -m benchmarks.surgery_gap > benchmarks/results/surgery_gap.md

Ordinary zero-masks multiply the outputs of the layers that make a channel by its keep value. The rest of the network
goes on as if the channel were there: norms count its zeros, and their shifts bring it back to life. Surgery does not.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import prunegraph
from benchmarks.criteria.__main__ import BATCH, MASK_STEPS, SECONDS, TUNING_STEPS, batches, tuned
from benchmarks.demo.run import WEIGHTS
from benchmarks.separators import SAMPLE_RATE, load_separator
from prunegraph.data.corpus import Split, split_by_utterance
from prunegraph.data.debian import load_debian_corpus
from prunegraph.data.mixtures import MixtureSampler, MixtureSettings
from prunegraph.importance.moments import InputMoments
from prunegraph.masked.program import MaskedNetwork
from prunegraph.plugin import CriterionContext
from prunegraph.recovery.evaluation import Improvement, evaluate
from prunegraph.recovery.losses import pit_si_sdr_loss
from prunegraph_sepprune import SepPrune
from prunegraph_sepprune.learning import LearningSettings

SHARES = (0.5,)
SEED, TEST_SEED, TEST_MIXTURES = 0, 1, 100
Program = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """SI-SDRi of one learning: under its masks, after surgery, and after fine-tuning."""

    masked: Improvement
    pruned: Improvement
    tuned: Improvement


class ZeroMasks:
    """A network whose convolutions' outputs are multiplied by keep values, as masks are usually learned.

    Args:
        model: the network.
        graph: its groups; each is masked behind every convolution whose output channels it holds.
    """

    def __init__(self, model: nn.Module, graph: prunegraph.DependencyGraph) -> None:
        self.model = model
        modules = dict(model.named_modules())
        self.layers = [
            (layer, group.name, torch.as_tensor(member.indices))
            for group in graph.groups
            for member in group.members
            if member.dim == 0 and isinstance(layer := modules.get(member.tensor.removesuffix(".weight")), nn.Conv1d)
        ]

    def __call__(self, masks: Mapping[str, Tensor], mixture: Tensor) -> Any:
        """The output under the masks."""
        with self.masked(masks):
            return self.model(mixture)

    @contextmanager
    def masked(self, masks: Mapping[str, Tensor]) -> Iterator[None]:
        """The network computes under the masks within."""
        with ExitStack() as stack:
            for layer, name, indices in self.layers:
                handle = layer.register_forward_hook(_multiplied(masks[name], indices))
                stack.callback(handle.remove)
            yield


def _multiplied(mask: Tensor, indices: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def hook(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        keep = output.new_ones(output.shape[1]).index_copy(
            0, indices.flatten(), mask.repeat_interleave(indices.shape[1])
        )
        return output * keep[:, None]

    return hook


class Masked(nn.Module):
    """A program under fixed masks, as a network."""

    def __init__(self, model: nn.Module, program: Program, masks: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model, self.program, self.masks = model, program, masks

    def forward(self, mixture: Tensor) -> Any:
        return self.program(self.masks, mixture)


def learn(split: Split, share: float, *, exact: bool) -> Outcome:
    """Learns masks on one of the programs, prunes and fine-tunes."""
    dense = load_separator(WEIGHTS).requires_grad_(False)
    graph = prunegraph.build_graph(dense, torch.zeros(BATCH, 1, int(SECONDS * SAMPLE_RATE)))
    budget = prunegraph.Budget(macs=share)
    program: Program = MaskedNetwork(dense, graph) if exact else ZeroMasks(dense, graph)
    data = batches(split.train, SEED, MASK_STEPS)
    context = CriterionContext(
        seed=SEED,
        data=data,
        moments=InputMoments(graph=graph, data=data),
        loss=pit_si_sdr_loss,
        masked_program=program,
        budget=budget,
    )
    scores = SepPrune(learning=LearningSettings(steps=MASK_STEPS)).score(graph, graph.weights, context)
    plan = prunegraph.select(graph, scores, budget)
    pruned = prunegraph.apply(dense, plan).requires_grad_(True)
    test = MixtureSampler(split.test, MixtureSettings()).fixed(TEST_SEED, TEST_MIXTURES)
    return Outcome(
        masked=evaluate(Masked(dense, program, masks_of(graph, plan)), test),
        pruned=evaluate(pruned, test),
        tuned=evaluate(tuned(pruned, split.train, SEED), test),
    )


def masks_of(graph: prunegraph.DependencyGraph, plan: prunegraph.PruningPlan) -> dict[str, Tensor]:
    """Keep values of 0 and 1 by group."""
    masks = {group.name: torch.zeros(group.width) for group in graph.groups}
    for name, mask in masks.items():
        mask[list(plan.kept.get(name, range(len(mask))))] = 1
    return masks


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    split = split_by_utterance(load_debian_corpus(SAMPLE_RATE, progress=lambda text: None))
    print("# What the exact masked program buys\n")
    print("| MACs left | masks learned on | under masks | after surgery | fine-tuned |\n|---|---|---|---|---|")
    for share in SHARES:
        for name, exact in (("exact masked program", True), ("zero-masks", False)):
            found = learn(split, share, exact=exact)
            print(f"| {share:.0%} | {name} | {found.masked} | {found.pruned} | {found.tuned} |", flush=True)
    print(
        f"\nSI-SDRi of the demo's Conv-TasNet on {TEST_MIXTURES} mixtures of utterances never trained on; `sepprune`, "
        f"{MASK_STEPS} steps of {BATCH} mixtures, seed {SEED}; {TUNING_STEPS} steps of fine-tuning. "
        f"torch {torch.__version__}, one CPU thread. Written by `python -m benchmarks.surgery_gap`."
    )


if __name__ == "__main__":
    main()
