"""The page of speeds: what a call costs, and what each second of audio adds."""

from benchmarks.speed_table import page


def row(seconds: float, dense_ms: float, speed_up: float, plan: str = "by time") -> dict[str, object]:
    return {
        "network": "net",
        "seconds": seconds,
        "form": "eager",
        "runs as": ["eager", "eager"],
        "plan": plan,
        "macs": 2.0,
        "processor": [speed_up, speed_up, speed_up],
        "wall": [1.0, 1.0, 1.0],
        "in all": speed_up,
        "dense ms": [dense_ms, dense_ms],
        "rounds": 5,
        "measured on": "a machine",
    }


def test_a_line_through_two_lengths() -> None:
    """Dense 100 ms and 200 ms a second; pruned 80 ms and 100 ms a second."""
    rows = [row(1, 300, 300 / 180), row(4, 900, 900 / 480), row(1, 300, 1.0, plan="l1"), row(4, 900, 1.0, plan="l1")]
    written = page({"speed": rows, "ops": []})
    assert "## a machine" in written
    assert "| net | eager | actively | 100 + 200 | 80 + 100 | 2.00x |" in written
    assert "| net | 1 s | eager | by time | 2.00x | 1.67x (1.67 to 1.67) | 0.83 | 1.67x | 1.00x | 300 | 5 |" in written


def test_one_length_makes_no_line() -> None:
    rows = [row(1, 300, 1.5), row(4, 900, 1.5) | {"network": "other"}]
    assert "| net | eager | " not in page({"speed": rows, "ops": []})
