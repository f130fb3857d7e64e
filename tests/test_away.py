"""`benchmarks/away.py`: files that come in pieces, and a run that goes on in another call."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import away  # noqa: E402

# Counts on from what its folder holds, and stops as a run does: it saves, and ends with a status of its own.
COUNTER = """\
mkdir -p $1/checkpoints
saved=$1/checkpoints/count
count=$(cat $saved 2>/dev/null || echo 0)
trap 'echo $count > $saved; exit 130' TERM
while [ $count -lt $2 ]; do
    count=$((count + 1))
    echo $count > $1/metrics.jsonl
    sleep 0.02
done
"""


def test_pieces_may_come_in_several_calls_and_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").write_bytes(bytes(range(250)))
    away.pack([tmp_path / "weights.gguf"], tmp_path / "here", size=100)
    work, there = tmp_path / "work", tmp_path / "there"
    names = ["weights.gguf.001", "weights.gguf.002", "weights.gguf.003"]
    for number, name in enumerate(names):
        there.mkdir()
        for brought in (away.LIST, name):
            (there / brought).write_bytes((tmp_path / "here" / brought).read_bytes())
        assert away.join(there, work) == names[number + 1 :]
        there.rename(tmp_path / f"gone-{number}")
    assert (work / "files" / "weights.gguf").read_bytes() == bytes(range(250))


def test_a_piece_that_was_damaged_is_missing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcdef")
    away.pack([tmp_path / "x"], tmp_path / "here", size=4)
    (tmp_path / "here" / "x.001").write_bytes(b"abcx")
    assert away.join(tmp_path / "here", tmp_path / "work") == ["x.001"]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_that_is_stopped_goes_on_on_the_same_machine_or_another(tmp_path: Path, elsewhere: bool) -> None:
    (tmp_path / "count.sh").write_text(COUNTER)
    work, out = tmp_path / "work", tmp_path / "out"
    command = ["sh", str(tmp_path / "count.sh"), str(work / "run"), "100000"]
    assert away.join(out, work) == []
    assert away.run(command, work, out, 1.0) == away.STOPPED
    count = int((out / "metrics.jsonl").read_text())
    assert count > 0
    assert not (out / "checkpoints").exists()
    if elsewhere:
        work = tmp_path / "other"
        assert away.join(out, work) == []
    command = ["sh", str(tmp_path / "count.sh"), str(work / "run"), str(count + 1)]
    assert away.run(command, work, out, 30.0) == 0
    assert int((out / "metrics.jsonl").read_text()) == count + 1
