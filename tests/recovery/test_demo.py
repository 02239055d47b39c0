"""The demo from end to end, with a tiny separator and synthetic speakers."""

import io
import json
from pathlib import Path

import pytest
import soundfile
import torch
from rich.console import Console
from safetensors.torch import save_file

from benchmarks.demo.run import Effort, main, run
from benchmarks.separators import load_separator
from prunegraph.data.corpus import Split, read_speaker_folder
from prunegraph.models.torchaudio_models import conv_tasnet
from tests.data.speakers import write_speakers

NETWORK = {"kernel": 16, "filters": 16, "hidden": 16, "bottleneck": 8, "layers": 2, "stacks": 1}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "separator.safetensors"
    save_file(conv_tasnet(**NETWORK).state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps({"separator": "conv-tasnet", "network": NETWORK}))
    return path


def test_weights_are_loaded_for_evaluation(weights: Path) -> None:
    torch.manual_seed(0)
    expected = conv_tasnet(**NETWORK).state_dict()
    network = load_separator(weights)
    assert not network.training
    assert all(torch.equal(expected[name], tensor) for name, tensor in network.state_dict().items())


def test_the_table_shows_all_networks_and_the_files_are_there(tmp_path: Path, weights: Path) -> None:
    corpus = read_speaker_folder(write_speakers(tmp_path / "speakers", speakers=3, clips=4, seconds=3.2), 8000)
    said: list[str] = []
    split = Split(train=corpus, val=corpus, test=corpus)
    table = run(
        split,
        weights,
        tmp_path / "out",
        Effort(mixtures=2, mask_steps=3, compensation_batches=1, steps=2),
        say=said.append,
    )
    networks = [
        "dense",
        *(f"{name} {state}" for name in ("l1", "sepprune") for state in ("pruned", "compensated", "recovered")),
    ]
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns[""] == networks
    assert list(columns)[-1] == "SI-SDRi, cross-family"
    dense, *smaller = (float(str(cell).removesuffix(" M")) for cell in columns["MACs per s"])
    assert all(0.46 * dense <= macs <= 0.52 * dense for macs in smaller)
    assert smaller[0] == smaller[1] == smaller[2]
    assert sum("verified" in line for line in said) == 2
    names = sorted(path.name for path in (tmp_path / "out").glob("1_*.wav"))
    assert names == sorted(
        ["1_mixture.wav", "1_source1.wav", "1_source2.wav"]
        + [f"1_{network.replace(' ', '_')}_est{i}.wav" for network in networks for i in (1, 2)]
    )
    samples, rate = soundfile.read(tmp_path / "out" / "1_sepprune_recovered_est1.wav")
    assert (rate, samples.ndim) == (8000, 1)
    printed = io.StringIO()
    Console(file=printed).print(table)
    assert "RTF" in printed.getvalue()


def test_a_folder_without_speakers_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["demo", "--speakers", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    assert "error:" in capsys.readouterr().out
