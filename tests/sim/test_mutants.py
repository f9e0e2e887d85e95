"""Planted bugs: each must be found by the storms, within their normal budget.

A harness that finds nothing proves nothing. Each file in mutants/ plants one bug, and says by which
complaint it is to be found; and, where that is not the first one, in which storm it was found last:
that one is tried first.
"""

import importlib
from pathlib import Path

import pytest

from kcore.sim.cluster import Setting
from tests.sim import storm

_SEEDS = range(1, 21)
_MINUTES = 1.5
_NAMES = sorted(
    path.stem for path in (Path(__file__).parent / "mutants").glob("*.py") if path.stem[0] != "_"
)


@pytest.mark.parametrize("name", _NAMES)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = importlib.import_module(f"tests.sim.mutants.{name}")
    mutant.plant(monkeypatch)
    likely = getattr(mutant, "FOUND_IN", _SEEDS.start)
    seeds = sorted(_SEEDS, key=lambda seed: seed != likely)
    report = storm.first_broken(Setting(1, _MINUTES), seeds, mutant.FOUND_BY)
    assert report is not None, f"{name} lives"
