"""``prunegraph finetune``."""

import json
from pathlib import Path

import pytest
import torch

import prunegraph
from prunegraph.io.saved_network import read
from tests.cli.conftest import SEPARATOR
from tests.cli.networks import Separator
from tests.data.data_sets import write_librimix
from tests.data.speakers import write_speakers

QUICK = ("--seconds", 0.5, "--batch", 2, "--steps", 6, "--check-every", 3, "--accelerator", "cpu")


@pytest.fixture
def speakers(tmp_path: Path) -> Path:
    return write_speakers(tmp_path / "speakers", speakers=2, clips=40, seconds=0.6)


def test_a_saved_result_is_recovered_and_saved_and_still_proved(run, saved, speakers, tmp_path) -> None:
    more = ("--distil", 0.1, "--compensation", 4, "--tensorboard", "--json")
    result = run("finetune", *SEPARATOR, saved, "--speakers", speakers, "--output", tmp_path / "tuned", *QUICK, *more)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [check["step"] for check in document["checks"]] == [0, 3, 6]
    assert document["best"]["validation"] == min(check["validation"] for check in document["checks"])
    assert "closed-form compensation" in result.stderr
    assert {path.name for path in (tmp_path / "tuned.run").iterdir()} == {"last.pt", "best.pt", "log"}
    before, after = (prunegraph.load(Separator, path) for path in (saved, tmp_path / "tuned"))
    assert not torch.equal(before.encoder.weight, after.encoder.weight)
    best = torch.load(tmp_path / "tuned.run" / "best.pt", weights_only=True)["network"]
    assert all(torch.equal(tensor, best[name]) for name, tensor in after.state_dict().items())
    assert run("verify", *SEPARATOR, tmp_path / "tuned").exit_code == 0


def test_recorded_mixtures_serve_as_well(run, saved, tmp_path) -> None:
    libri = write_librimix(tmp_path / "libri")
    result = run("finetune", *SEPARATOR, saved, "--librimix", libri, "--output", tmp_path / "tuned", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["checks"]) == 3
    assert run("verify", *SEPARATOR, tmp_path / "tuned").exit_code == 0


def test_a_run_goes_on(run, saved, speakers, tmp_path) -> None:
    common = ("finetune", *SEPARATOR, saved, "--speakers", speakers, "--run", tmp_path / "run", *QUICK)
    assert run(*common, "--output", tmp_path / "short", "--steps", 3).exit_code == 0
    result = run(*common, "--output", tmp_path / "long", "--json")
    assert [check["step"] for check in json.loads(result.stdout)["checks"]] == [0, 3, 6]
    assert "step 6" in result.stderr
    assert "step 3" not in result.stderr


def test_rounds_of_pruning_end_at_the_share_and_are_proved(run, saved, speakers, tmp_path) -> None:
    more = ("--macs", 0.25, "--rounds", 2, "--round-steps", 3, "--json")
    result = run("finetune", *SEPARATOR, saved, "--speakers", speakers, "--output", tmp_path / "small", *QUICK, *more)
    assert result.exit_code == 0, result.output
    shares = [read(path).pruned.macs / read(path).dense.macs for path in (saved, tmp_path / "small")]
    assert 0.2 < shares[1] <= 0.25 < shares[0]
    first, last = (read(path).plan.kept for path in (saved, tmp_path / "small"))
    assert all(set(last[name]) <= set(first[name]) for name in first)
    assert read(tmp_path / "small").criterion == "l1, then reconstruction in 2 rounds"
    assert run("verify", *SEPARATOR, tmp_path / "small").exit_code == 0


def test_mistakes_are_one_line(run, saved, speakers, tmp_path) -> None:
    common = ("finetune", *SEPARATOR, saved, "--speakers", speakers)
    cases = {
        "give one of --speakers, --corpus": ("--output", tmp_path / "out", "--corpus"),
        "exists already": ("--output", saved),
        "leaves nothing to prune: the saved network has": ("--output", tmp_path / "out", "--macs", 0.6),
        "cannot be had": ("--output", tmp_path / "out", "--precision", "8-bit"),
    }
    for message, options in cases.items():
        result = run(*common, *options)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert message in result.stderr


def test_too_few_recordings_for_validation_are_told(run, saved, tmp_path) -> None:
    speakers = write_speakers(tmp_path / "few", speakers=2, clips=3, seconds=0.6)
    result = run("finetune", *SEPARATOR, saved, "--speakers", speakers, "--output", tmp_path / "out", *QUICK)
    assert result.exit_code == 1
    assert "recordings kept for validation: No pair of people has clips of 0.5 s or more" in " ".join(
        result.stderr.split()
    )
