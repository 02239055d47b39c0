"""What a network's ops cost in time on one device: measured once, then asked for any choice of channels."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from prunegraph.errors import FileFormatError, InputError
from prunegraph.timing import Target

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OpLatency:
    """Time of one op call: ``fixed + per_mac * MACs + per_byte * bytes read and written``, in seconds.

    Attributes:
        node: name of the call in the recorded graph.
        op: what it calls, such as ``aten.conv1d.default``.
        block: of how many channels the device does all when it does one: MACs and bytes count with widths rounded up
            to multiples of it.
        fixed: seconds of a call, whatever its size.
        per_mac: seconds per multiply-accumulate operation.
        per_byte: seconds per byte that is read or written.
    """

    node: str
    op: str
    block: int
    fixed: float
    per_mac: float
    per_byte: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredWidth:
    """The whole network with the same share of the channels in every group, measured and predicted.

    Attributes:
        share: of the channels that stayed.
        median: seconds of the median forward pass.
        spread: interquartile range of the passes in seconds.
        predicted: seconds by the fitted table.
    """

    share: float
    median: float
    spread: float
    predicted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyProfile:
    """Latency of one network, for one shape of its inputs, on one device.

    The predicted latency of a plan is ``base + scale * (sum over the ops)``.

    Attributes:
        target: the device and its settings.
        network: fingerprint of the network's structure and of the input shapes.
        ops: time of each op call, in the order of the recorded graph.
        base: seconds of a forward pass that are no op's.
        scale: by how much ops in the running network differ from ops in the replay.
        seconds: duration of the example's audio; None where nobody told the sample rate.
        widths: what the table was fitted to.
    """

    target: Target
    network: str
    ops: tuple[OpLatency, ...]
    base: float
    scale: float
    seconds: float | None
    widths: tuple[MeasuredWidth, ...]

    @property
    def greatest_error(self) -> float:
        """The greatest relative error of a prediction for a network that the table was made from."""
        return max(abs(width.predicted / width.median - 1) for width in self.widths)

    def require_target(self, target: Target) -> None:
        """Refuses times of another device.

        Raises:
            InputError: names what differs.
        """
        mine, given = asdict(self.target), asdict(target)
        differing = [f"{name} {mine[name]!r}, not {given[name]!r}" for name in mine if mine[name] != given[name]]
        if differing:
            raise InputError(f"the profile was made with {'; '.join(differing)}; make one on this device")

    def to_json(self) -> str:
        """The profile as JSON text."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=1)

    def save(self, path: str | Path) -> None:
        """Writes the profile as a JSON file; an earlier one is replaced once all is written.

        Raises:
            OSError: the file cannot be written.
        """
        target = Path(path)
        partial = target.with_name(f".{target.name}.{uuid4().hex[:8]}.partial")
        try:
            partial.write_text(self.to_json(), encoding="utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def from_json(cls, text: str) -> "LatencyProfile":
        """Reads what `to_json` wrote.

        Raises:
            FileFormatError: the text is no latency profile, or of another schema version.
        """
        try:
            raw = json.loads(text)
            version = raw.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise FileFormatError(
                    f"the latency profile has schema version {version}, this prunegraph reads {SCHEMA_VERSION}"
                )
            return _from_raw(raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"this is no latency profile: {type(error).__name__}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "LatencyProfile":
        """Reads a file that `save` wrote.

        Raises:
            FileFormatError: it is no latency profile; names the file.
            OSError: the file cannot be read.
        """
        try:
            return cls.from_json(Path(path).read_bytes().decode())
        except (FileFormatError, UnicodeDecodeError) as error:
            raise FileFormatError(f"{path}: {error}; make it anew with prunegraph profile") from error


def _from_raw(raw: Mapping[str, Any]) -> LatencyProfile:
    profile = LatencyProfile(
        **{
            **raw,
            "target": Target(**raw["target"]),
            "ops": tuple(OpLatency(**op) for op in raw["ops"]),
            "widths": tuple(MeasuredWidth(**width) for width in raw["widths"]),
        }
    )
    times = [profile.base, profile.scale, *(t for op in profile.ops for t in (op.fixed, op.per_mac, op.per_byte))]
    if any(op.block < 1 for op in profile.ops) or not all(math.isfinite(value) and value >= 0 for value in times):
        raise ValueError("a time is negative or not finite, or a block is not positive")
    return profile
