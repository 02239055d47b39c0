"""Optional packages: imported when needed, one clear line where they are missing."""

import importlib
import sys
from pathlib import Path

import pytest

from prunegraph.errors import MissingPackageError
from prunegraph.optional_packages import import_optional, import_torchaudio


def test_an_installed_module_is_imported() -> None:
    assert import_optional("json.decoder", extra="demo") is sys.modules["json.decoder"]


@pytest.mark.parametrize("name", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_is_named_with_its_extra(name: str) -> None:
    with pytest.raises(MissingPackageError, match=r"no_such_package is needed.*prunegraph\[evaluation\]"):
        import_optional(name, extra="evaluation")


def test_what_a_package_itself_lacks_is_not_blamed_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        import_optional("half_installed", extra="demo")


def test_torchaudio_is_imported_without_its_extension_if_need_be() -> None:
    assert import_torchaudio("torchaudio.datasets").LibriMix.__name__ == "LibriMix"
    assert importlib.import_module("torchaudio._extension")._IS_TORCHAUDIO_EXT_AVAILABLE in (True, False)
