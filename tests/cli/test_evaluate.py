"""``prunegraph evaluate`` and ``prunegraph corpus``."""

import csv
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunegraph.cli import corpus as corpus_module
from prunegraph.cli import evaluate as evaluate_module
from prunegraph.cli import mixtures as mixtures_module
from prunegraph.data.corpus import Clip, Corpus, Voice
from prunegraph.data.manifests import read_manifests
from prunegraph.evaluation.separation import evaluate
from prunegraph.evaluation.speed import measure_speed
from tests.data.bad_files import BAD_FILES, good
from tests.data.speakers import utterance, write_speakers
from tests.evaluation.separators import small_separator

NETWORK = ("tests.evaluation.separators:small_separator", "--input-shape", "1,1,800")
COUNT = 3


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_module, "measure_speed", functools.partial(measure_speed, measure_for=0.01))


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "tt"
    for number, track in enumerate(("mix", "s1", "s2")):
        (folder / track).mkdir(parents=True)
        paths = [good(folder / track / f"utt{i}.wav", pitch=70 + 60 * number + 9 * i) for i in range(COUNT)]
        (folder / f"{track}.json").write_text(json.dumps([[str(path), 9600] for path in paths]))
    return folder


@pytest.fixture
def speech() -> Corpus:
    clips = [
        Clip(
            voice=Voice(name=f"v{i}", person=f"p{i}", family="f", credit=f"Person {i}"),
            name=f"clip{j}",
            samples=(2**14 * utterance(90 * 1.6**i, 2.2, 8000, seed=j)).astype(np.int16),
        )
        for i in range(2)
        for j in range(30)
    ]
    return Corpus(sample_rate=8000, clips=tuple(clips))


def _check_one_line(result, message: str) -> None:
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr
    assert (result.exit_code, result.stdout) == (1, "")


def test_json_holds_means_speed_and_the_scores_of_each_mixture(run, manifests: Path) -> None:
    result = run("evaluate", *NETWORK, "--manifests", manifests, "--stoi", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    torch.manual_seed(0)
    expected = evaluate(small_separator(), read_manifests(manifests, 8000), 8000, metrics=["si_sdr", "sdr", "stoi"])
    for name, mean in expected.means.items():
        assert found["means"][name]["mean"] == pytest.approx(mean.mean, abs=1e-4)
        assert found["means"][name]["half_width"] == pytest.approx(mean.half_width, abs=1e-4)
    assert [row["mixture"] for row in found["scores"]] == ["utt0", "utt1", "utt2"]
    assert found["speed"]["seconds"] == 0.1
    assert found["speed"]["real_time_factor"] > 0
    assert found["directory"] is None


def test_tables_for_people_and_a_csv_for_programs(run, manifests: Path, tmp_path: Path) -> None:
    result = run("evaluate", *NETWORK, "--manifests", manifests, "--pesq", "--csv", tmp_path / "scores.csv")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[-1] == str(COUNT)] == ["SI-SDR", "SI-SDRi", "SDR", "SDRi", "PESQ"]
    assert "real-time factor" in result.stdout
    assert "weights that the factory made" in result.stderr
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert [row["mixture"] for row in csv.DictReader(file)] == ["utt0", "utt1", "utt2"]


def test_a_saved_result_is_evaluated_instead_of_the_network(run, manifests: Path, tmp_path: Path) -> None:
    assert run("prune", *NETWORK, "--macs", 0.5, "--output", tmp_path / "saved").exit_code == 0
    dense, pruned = (
        json.loads(run("evaluate", NETWORK[0], *which, *NETWORK[1:], "--manifests", manifests, "--json").stdout)
        for which in ((), (tmp_path / "saved",))
    )
    assert pruned["directory"] == str(tmp_path / "saved")
    assert pruned["means"]["si_sdr"]["mean"] != dense["means"]["si_sdr"]["mean"]


def test_a_network_without_a_channel_dimension(run, manifests: Path) -> None:
    arguments = (NETWORK[0], "--kwargs", '{"channel": false}', "--input-shape", "1,800")
    with_channel, without = (
        json.loads(run("evaluate", *network, "--manifests", manifests, "--json").stdout)["means"]["sdr"]["mean"]
        for network in (NETWORK, arguments)
    )
    assert with_channel == pytest.approx(without, abs=1e-4)


def test_mixtures_of_a_folder_of_speakers(run, tmp_path: Path) -> None:
    write_speakers(tmp_path / "speakers", clips=2, seconds=2.2)
    arguments = ("evaluate", *NETWORK, "--speakers", tmp_path / "speakers", "--part", "all", "--count", 2, "--json")
    first, again, other = (json.loads(run(*arguments, *seed).stdout) for seed in ((), (), ("--seed", 1)))
    assert first["scores"] == again["scores"]
    assert len(first["scores"]) == 2
    assert first["scores"] != other["scores"]


def test_the_corpus_of_packages(run, speech: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures_module, "load_debian_corpus", lambda rate, progress: speech)
    found = json.loads(run("evaluate", *NETWORK, "--corpus", "--count", 2, "--json").stdout)
    assert len(found["scores"]) == 2


def test_some_of_the_recorded_mixtures_chosen_by_the_seed(run, manifests: Path) -> None:
    arguments = ("evaluate", *NETWORK, "--manifests", manifests, "--count", 2, "--json", "--seed")
    chosen = [tuple(row["mixture"] for row in json.loads(run(*arguments, seed).stdout)["scores"]) for seed in range(4)]
    assert all(len(names) == 2 for names in chosen)
    assert len(set(chosen)) > 1


def test_bad_files_are_refused_or_skipped_by_name(run, manifests: Path) -> None:
    BAD_FILES["silent"][0](manifests / "s2" / "utt1.wav")
    arguments = ("evaluate", *NETWORK, "--manifests", manifests)
    _check_one_line(run(*arguments), "s2/utt1.wav is silent")
    result = run(*arguments, "--skip-bad", "--json")
    assert "s2/utt1.wav is silent" in result.stderr
    assert [row["mixture"] for row in json.loads(result.stdout)["scores"]] == ["utt0", "utt2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --speakers, --corpus, --librimix and --manifests"),
        (["--speakers", "a", "--manifests", "b"], "give one of --speakers"),
        (["--speakers", "nowhere"], "there is no folder nowhere"),
        (["--manifests", "nowhere"], "nowhere has no s1.json"),
        (["--librimix", "nowhere"], "nowhere has no folder Libri2Mix"),
        (["--librimix", "nowhere", "--subset", "eval"], "no subset 'eval'; there are train-360"),
        (["--corpus", "--csv", "nowhere/scores.csv"], "nowhere/scores.csv cannot be written"),
        (["--corpus", "--device", "abacus"], "--device abacus cannot be had"),
    ],
)
def test_mistakes_are_one_clear_line(run, arguments: list[str], message: str) -> None:
    _check_one_line(run("evaluate", *NETWORK, *arguments), message)


def test_a_network_that_takes_something_else_is_refused(run, manifests: Path) -> None:
    result = run("evaluate", NETWORK[0], "--input-shape", "1,2,800", "--manifests", manifests)
    _check_one_line(result, "evaluate needs a network that takes one mono signal")


def test_a_network_that_fails_is_named_with_the_mixture(run, manifests: Path) -> None:
    result = run("evaluate", NETWORK[0], "--input-shape", "1,800", "--kwargs", "{}", "--manifests", manifests)
    assert result.exit_code == 0, result.stderr  # torch's convolutions take (channels, time), too
    result = run("evaluate", "tests.cli.networks:TwoInputs", "--input-shape", "1,1,80", "--manifests", manifests)
    _check_one_line(result, "The network failed on mixture utt0 (1, 1, 9600): TypeError")


def test_too_few_mixtures_to_ask_for_are_wrong_usage(run, manifests: Path) -> None:
    assert run("evaluate", *NETWORK, "--manifests", manifests, "--count", 1).exit_code == 2


def test_the_corpus_is_written_as_a_folder_of_speakers(
    run, speech: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "load_debian_corpus", lambda rate, progress: speech)
    result = run("corpus", tmp_path / "speech", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {
        "folder": str(tmp_path / "speech"),
        "seconds": pytest.approx(speech.seconds),
        "people": ["p0", "p1"],
        "credits": ["Person 0", "Person 1"],
    }
    assert len(list((tmp_path / "speech").rglob("*.flac"))) == 60
    _check_one_line(run("corpus", tmp_path / "speech"), "exists already")
    shown = run("corpus", tmp_path / "again")
    assert "Person 0; Person 1" in shown.stdout
