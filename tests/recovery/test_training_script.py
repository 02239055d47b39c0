"""The training script of the demo's separator, on synthetic speakers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import train_separator
from benchmarks.compiled_tasnet import compiled_for_training
from benchmarks.separators import SEPARATORS, load_separator
from benchmarks.train_separator import TrainingSettings, fit, keep_settings, make_split, rate_factor, restore, start
from prunegraph.data.corpus import Split, read_speaker_folder
from prunegraph.data.debian import TEST_PEOPLE
from prunegraph.errors import DataError
from prunegraph.models.torchaudio_models import conv_tasnet
from tests.data.speakers import write_speakers

NETWORK = {"kernel": 16, "filters": 8, "hidden": 8, "bottleneck": 4, "layers": 2, "stacks": 1}
SETTINGS = TrainingSettings(steps=6, batch=2, seconds=0.6, warmup=2, network=NETWORK)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = write_speakers(tmp_path_factory.mktemp("speakers"), speakers=3, clips=40)
    return make_split(read_speaker_folder(folder, 8000), "utterance")


def _train(run: Path, split: Split, settings: TrainingSettings = SETTINGS) -> dict[str, torch.Tensor]:
    keep_settings(settings, run)
    training = start(settings, torch.device("cpu"))
    restore(training, run)
    fit(training, settings, split, run, compiled=False)
    return dict(training.network.state_dict())


def test_an_interrupted_run_ends_like_one_that_ran_through(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_separator, "LOG_EVERY", 2)
    expected = _train(tmp_path / "whole", split)
    step = train_separator.train_step

    def failing_step(training: train_separator.Training, *arguments: Any) -> torch.Tensor:
        if training.step == 5:
            raise KeyboardInterrupt
        return step(training, *arguments)

    monkeypatch.setattr(train_separator, "train_step", failing_step)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", split)
    monkeypatch.setattr(train_separator, "train_step", step)
    resumed = _train(tmp_path / "cut", split)
    assert all(torch.equal(expected[name], tensor) for name, tensor in resumed.items())
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("whole", "cut")]
    lines = [[json.loads(line) for line in log.splitlines()] for log in logs]
    assert [entry["step"] for entry in lines[1]] == [2, 4, 6]
    assert [entry["loss_db"] for entry in lines[0]] == [entry["loss_db"] for entry in lines[1]]
    assert "val_si_sdri_db" in lines[1][-1]


def test_other_settings_do_not_continue_a_run(tmp_path: Path) -> None:
    keep_settings(SETTINGS, tmp_path)
    with pytest.raises(DataError, match="other settings"):
        keep_settings(TrainingSettings(steps=6, batch=3, network=NETWORK), tmp_path)


@pytest.mark.parametrize(("step", "allowed"), [(60, True), (90, False)])
def test_the_number_of_steps_may_change_until_the_decay(tmp_path: Path, step: int, allowed: bool) -> None:
    keep_settings(TrainingSettings(steps=120), tmp_path)
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": step}) + "\n")
    if allowed:
        keep_settings(TrainingSettings(steps=90), tmp_path)
        assert json.loads((tmp_path / "settings.json").read_text())["steps"] == 90
    else:
        with pytest.raises(DataError, match="other settings"):
            keep_settings(TrainingSettings(steps=200), tmp_path)


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    settings = TrainingSettings(steps=300, warmup=10)
    rates = [rate_factor(settings, step) for step in range(301)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[9:200]) == {1.0}
    assert rates[250] == pytest.approx(0.5)
    assert rates[300] == 0


def test_exported_weights_are_those_of_the_run(tmp_path: Path, split: Split) -> None:
    trained = _train(tmp_path / "run", split)
    weights = tmp_path / "weights.safetensors"
    train_separator.export(tmp_path / "run", weights)
    exported = load_file(weights)
    assert all(torch.equal(trained[name], tensor) for name, tensor in exported.items())
    assert json.loads(weights.with_suffix(".json").read_text())["network"] == NETWORK
    assert weights.with_suffix(".jsonl").read_text() == (tmp_path / "run" / "log.jsonl").read_text()


@pytest.mark.parametrize("name", SEPARATORS)
def test_every_separator_is_trained_and_loaded_again(tmp_path: Path, split: Split, name: str) -> None:
    settings = TrainingSettings(
        steps=2, batch=1, seconds=0.6, warmup=1, separator=name, network=dict(SEPARATORS[name].sizes)
    )
    trained = _train(tmp_path / "run", split, settings)
    train_separator.export(tmp_path / "run", tmp_path / "weights.safetensors")
    loaded = load_separator(tmp_path / "weights.safetensors")
    assert all(torch.equal(trained[key], tensor) for key, tensor in loaded.state_dict().items())
    assert loaded(torch.zeros(1, 1, 4000)).shape == (1, 2, 4000)


def test_the_speaker_split_of_another_corpus_keeps_people_apart(tmp_path: Path) -> None:
    corpus = read_speaker_folder(write_speakers(tmp_path, speakers=4, clips=3), 8000)
    split = make_split(corpus, "speaker")
    assert split.test.people == ("speaker2", "speaker3")
    assert not set(split.train.people) & set(split.test.people)
    assert not set(TEST_PEOPLE) & set(corpus.people)


def test_the_fast_training_form_shares_parameters_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)  # the arithmetic is tested, not the compiler
    torch.manual_seed(0)
    network = conv_tasnet(**NETWORK).double()
    fast, signal = compiled_for_training(network), torch.randn(2, 1, 400, dtype=torch.float64)
    fast(signal).square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    network.zero_grad()
    network(signal).square().sum().backward()
    torch.testing.assert_close(fast(signal), network(signal))
    torch.testing.assert_close(gradients, [parameter.grad for parameter in network.parameters()])
