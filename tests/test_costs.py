"""The ledger shares wall time, energy and money among the nodes that ran, and says what measured the energy."""

from pathlib import Path

import pytest

from smallwit.pipeline import ledger as module
from smallwit.pipeline.energy import NOT_MEASURED, EnergyMeter
from smallwit.pipeline.ledger import Ledger
from smallwit.recipe.schema import Prices


def package(folder: Path, joules: float) -> Path:
    own = folder / "intel-rapl:0"
    own.mkdir(parents=True, exist_ok=True)
    (own / "max_energy_range_uj").write_text("10000000000")
    (own / "energy_uj").write_text(str(int(joules * 1e6)))
    return own


def test_energy_is_read_off_the_counter_of_a_package_which_begins_again(tmp_path: Path) -> None:
    package(tmp_path, 9_000)
    meter = EnergyMeter(tmp_path)
    package(tmp_path, 9_360)
    assert meter.kwh() == pytest.approx(0.0001)
    package(tmp_path, 360)  # 10,000 joules are where it begins again
    assert meter.kwh() == pytest.approx(1_000 / 3.6e6)
    assert meter.about == "RAPL, CPU packages"


def test_without_a_counter_no_energy_is_told(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path)
    assert (meter.kwh(), meter.about) == (None, NOT_MEASURED)


def test_nodes_that_run_side_by_side_share_time_energy_and_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    ledger = Ledger(tmp_path / "ledger.json")
    monkeypatch.setattr(ledger.meter, "kwh", lambda: 0.4)
    ledger.spend({})
    clock[0] = 3600.0
    ledger.spend({"a": 1, "b": 3})
    costs = ledger.costs({"sft": "a", "evaluate sft": "b", "rl": "c"}, Prices(hour=2.0, kwh=0.5), {"sft": 2_000_000})
    assert costs["nodes"]["sft"] == pytest.approx({"seconds": 900, "kwh": 0.1, "dollars": 0.55})
    assert costs["nodes"]["evaluate sft"] == pytest.approx({"seconds": 2700, "kwh": 0.3, "dollars": 1.65})
    assert costs["total"] == pytest.approx({"seconds": 3600, "kwh": 0.4, "dollars": 2.2})
    priced = ledger.costs({"sft": "a"}, Prices(teacher_tokens=3.0), {"sft": 2_000_000})
    assert priced["nodes"]["sft"]["dollars"] == pytest.approx(6.0)
