"""The protocol from end to end, on small networks and synthetic speakers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import prunegraph
from benchmarks.paper import protocol, speech, subjects
from benchmarks.paper.commands import app, main
from benchmarks.paper.journal import open_journal
from benchmarks.paper.protocol import FALLING
from benchmarks.paper.published import Figures, Row, Separator
from benchmarks.separators import SEPARATORS
from prunegraph.errors import InputError
from prunegraph.evaluation.intervals import MeanInterval
from prunegraph.evaluation.separation import Evaluation
from prunegraph.io.saved_network import read
from prunegraph.recovery.checkpoint import read_checkpoint
from tests.data.speakers import write_speakers
from tests.paper.networks import tiny_sudormrf, write_manifests, write_weights

ON_GPU = pytest.param("sepprune", "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))
SMALL = ("--mask-steps", "3", "--compensation", "2", "--seconds", "1", "--batch", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds weights and speakers."""
    folder = tmp_path_factory.mktemp("paper")
    write_weights(folder)
    write_speakers(folder / "speakers", speakers=2, clips=24, seconds=2.1)
    return folder


def scaled(place: Path, run: Path, *options: str) -> Result:
    words = ["scaled", str(place / "separator.safetensors"), "--speakers", str(place / "speakers")]
    words += ["--epoch", "6", "--test", "2", "--epochs", "2", "--scratch", "2", *SMALL, "--runs", str(run), *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "VALIDATION_BATCHES", 2)
        return CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.fixture(scope="module")
def whole(place: Path) -> Result:
    """What a run prints that nothing interrupts."""
    return scaled(place, place / "whole")


def cells(result: Result) -> list[list[str]]:
    """The table's lines without the header."""
    return [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")][1:]


def test_every_stage_is_scored_and_shown(place: Path, whole: Result) -> None:
    stages = open_journal(place / "whole").stages
    names = [(stage.name, stage.epochs) for stage in stages]
    recovered = [("pruned", 0), ("pruned", 1), ("compensated", 0), ("compensated", 1), (FALLING, 1), ("compensated", 2)]
    assert names[:7] == [("dense", 0), *recovered]
    assert names[7:] in ([("from scratch", 1)], [("from scratch", 1), ("from scratch", 2)])
    assert [line[0] for line in cells(whole)] == ["dense", *(name for name, _ in recovered), "from scratch"]
    assert cells(whole)[1][6] == f"{stages[1].si_sdri.mean / stages[0].si_sdri.mean:.1%}"
    assert "an epoch is 6 mixtures of 1 s" in whole.stdout.lower()


@pytest.mark.usefixtures("whole")
def test_half_of_the_macs_stay(place: Path) -> None:
    saved = read(place / "whole" / "pruned")
    assert 0.48 < saved.pruned.macs / saved.dense.macs <= 0.5


@pytest.mark.usefixtures("whole")
def test_an_epoch_has_the_papers_settings(place: Path) -> None:
    settings = read_checkpoint(place / "whole" / "training" / "pruned" / "last.pt")["settings"]
    wanted = {"learning_rate": 1e-3, "clip_norm": 5.0, "check_every": 3, "patience": 15, "factor": 0.5}
    assert {name: settings[name] for name in wanted} == wanted
    assert protocol.Recipe().training(20_000, 500).stop_after == 30
    assert protocol.Recipe().training(20_000, 500).steps == 10_000_000


def test_from_scratch_ends_where_the_level_is_reached(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = iter([9.0, 1.0, 4.0, 3.0, 4.2, 5.0, 8.0, 0.0, 4.5, 5.0])

    def evaluate(*_: Any) -> Evaluation:
        mean = MeanInterval(mean=next(levels), half_width=0.1, count=2)
        return Evaluation(scores=(), means={"sdri": mean, "si_sdri": mean})

    monkeypatch.setattr(protocol, "evaluate", evaluate)
    lines = cells(scaled(place, tmp_path, "--scratch", "9"))
    assert [line[-1] for line in lines[1:7]] == ["2", "2", "2", "2", "3", "more than 3"]
    assert (lines[-1][0], lines[-1][3]) == ("from scratch", "3")


@pytest.mark.usefixtures("whole")
def test_from_scratch_begins_with_random_weights_of_the_same_size(place: Path) -> None:
    trained = read_checkpoint(place / "whole" / "training" / "from-scratch" / "last.pt")["network"]
    inherited = read(place / "whole" / "pruned").state.tensors
    assert {name: tensor.shape for name, tensor in trained.items()} == {n: t.shape for n, t in inherited.items()}
    weights = [name for name, tensor in inherited.items() if tensor.dim() > 1]
    same = [torch.nn.functional.cosine_similarity(trained[n].flatten(), inherited[n].flatten(), 0) for n in weights]
    assert max(map(abs, same)) < 0.9


def test_an_interrupted_run_ends_like_one_that_ran_through(tmp_path: Path, place: Path, whole: Result) -> None:
    """In a training, before compensated weights are stored, and from scratch."""
    known = []
    for name, call in (("recover", 1), ("write", 1), ("evaluate", 5)):
        assert interrupted(place, tmp_path, name, call).exit_code != 0
        known.append(len(open_journal(tmp_path).stages))
    assert known == [2, 3, 7]
    assert scaled(place, tmp_path).stdout == whole.stdout
    assert open_journal(tmp_path).stages == open_journal(place / "whole").stages


def interrupted(place: Path, run: Path, name: str, call: int) -> Result:
    """A run that ends in a call of a function of the protocol."""
    original, calls = getattr(protocol, name), iter(range(1, 100))

    def function(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, name, function)
        return scaled(place, run)


@pytest.mark.usefixtures("whole")
def test_other_settings_do_not_continue_a_run(place: Path) -> None:
    before = (place / "whole" / "stages.json").read_bytes()
    with pytest.raises(InputError, match="seed = 0, not 1"):
        scaled(place, place / "whole", "--seed", "1")
    assert (place / "whole" / "stages.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table", "nothing"], "nothing is no folder of a run"),
        (["scaled", "strange.safetensors"], "strange.json names the separator None"),
        (["scaled", "missing.safetensors"], "No such file"),
        (["run", "tdanet", "--data", "lrs2", "--folder", "nothing", "--checkpoint", "x.pth"], "no folder train or tr"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange.json").write_text("{}")
    corpus = ["--speakers", str(place / "speakers"), "--seconds", "1"] if words[0] == "scaled" else []
    monkeypatch.setattr("sys.argv", ["paper", *words, *corpus])
    with pytest.raises(SystemExit, match=f"error: .*{re.escape(message)}"):
        main()


@pytest.mark.parametrize(("name", "share"), [("tdanet", 0.817), ("afrcnn", 0.596), ("sudormrf", 0.566)])
def test_a_small_network_of_the_paper_loses_the_papers_share(name: str, share: float) -> None:
    kind = SEPARATORS[name]
    network = kind.build(**{**kind.sizes, "num_blocks": 2})
    budget = subjects.small_budget(name, None)
    graph = prunegraph.build_graph(network, torch.zeros(1, 1, 800))
    plan = prunegraph.select(graph, prunegraph.score(graph, "random"), budget)
    assert 0.98 * share <= graph.cost(plan).parameters / graph.cost().parameters <= share
    assert subjects.small_budget(name, 0.7) == prunegraph.Budget(macs=0.7)


@pytest.fixture
def tiny_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """SuDoRM-RF on LRS2-2Mix with a network of 3,597 parameters."""
    separator = Separator(
        title="Tiny", factory="tests.paper.networks:tiny_sudormrf", groups=("sm.*.proj_1x1.conv.bias",)
    )
    figures = Figures(parameters=3000, macs=1e6, sdri=1.0, si_sdri=1.0)
    monkeypatch.setattr(subjects, "SEPARATORS", {"sudormrf": separator})
    monkeypatch.setattr(subjects, "TABLE_2", {("sudormrf", "lrs2"): Row(dense=figures, pruned=figures)})


@pytest.mark.usefixtures("tiny_row")
@pytest.mark.parametrize(("criterion", "device"), [("sepprune", "cpu"), ("sepprune-epsilon", "cpu"), ON_GPU])
def test_a_row_runs_from_manifests_and_a_checkpoint(tmp_path: Path, criterion: str, device: str) -> None:
    torch.manual_seed(0)
    dense = tiny_sudormrf()
    torch.save({"model_name": "SuDORMRF", "state_dict": dense.state_dict()}, tmp_path / "best_model.pth")
    words = ["run", "sudormrf", "--data", "lrs2", "--folder", str(write_manifests(tmp_path / "LRS2"))]
    words += ["--checkpoint", str(tmp_path / "best_model.pth"), "--runs", str(tmp_path / "run"), *SMALL]
    words += ["--epochs", "1", "--criterion", criterion, "--device", device]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    saved = read(tmp_path / "run" / "pruned")
    narrowed = {name for name, kept in saved.plan.kept.items() if len(kept) < saved.plan.widths[name]}
    assert narrowed <= {"sm.0.proj_1x1.conv.weight[0]", "sm.1.proj_1x1.conv.weight[0]"}
    if criterion != "sepprune-epsilon":
        assert 0.98 * 3000 <= saved.pruned.parameters <= 3000
    kept = saved.plan.tensors["sm.0.proj_1x1.conv.bias"][0]
    torch.testing.assert_close(saved.state.tensors["sm.0.proj_1x1.conv.bias"], dense.sm[0].proj_1x1.conv.bias[[*kept]])
    assert "*paper, LRS2-2Mix: pruned*" in result.stdout
    assert json.loads((tmp_path / "run" / "stages.json").read_text())["about"]["criterion"] == criterion
