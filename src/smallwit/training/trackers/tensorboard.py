"""TensorBoard: event files in the folder of the run. `tensorboard --logdir runs/NAME/tensorboard` draws them.

tensorboardX writes them: unlike torch's writer it needs not all of TensorBoard, which may be installed anywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smallwit.training.tracking import Tracker, scalars


class TensorBoard(Tracker):
    """Writes event files to `RUN/tensorboard/STAGE`."""

    name = "tensorboard"
    package = "tensorboardX"

    def __init__(self, run_dir: Path, stage: str, key: str) -> None:
        from tensorboardX import SummaryWriter

        # All that an earlier attempt wrote is taken back, for it is written again.
        self.writer = SummaryWriter(str(run_dir / self.name / stage), purge_step=0, flush_secs=10)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            for name, value in scalars(row).items():
                self.writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self.writer.close()
