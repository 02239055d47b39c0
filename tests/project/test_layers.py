"""Imports go strictly downward."""

import tomllib

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.project.sources import ROOT


def test_import_contracts_are_kept() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_every_part_of_the_package_has_its_layer() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    listed = {name.strip(" ()") for layer in layers for name in layer.split("|")}
    parts = {
        path.stem for path in (ROOT / "prunegraph").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - listed == {"__init__"}


def test_the_linter_sees_every_plug_in() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    plugins = {path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists()}
    assert plugins == set(config["tool"]["importlinter"]["root_packages"]) - {"prunegraph"}
    assert plugins == set(config["tool"]["importlinter"]["contracts"][1]["source_modules"])
    assert plugins == {path.removeprefix("plugins/") for path in _wheel_packages(config)} - {"prunegraph"}
    assert plugins == set(config["project"]["entry-points"]["prunegraph"].values())


def _wheel_packages(config: dict) -> list[str]:
    return config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
