"""The stage `export`: a model in the format of another program, measured as it reads back."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from smallwit.export import Quant
from smallwit.recipe.stage import Place, Stage
from smallwit.stages.job import Info, Job, Reporter

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.schema import Recipe


class ExportStage(Stage):
    """Export a model as a GGUF file. The artifact holds it with its Modelfile, and the model that it reads back as."""

    makes = "model"
    saves = False
    preload = ("smallwit.stages.export.run",)

    kind: Literal["export"]
    from_: str = Field(alias="from", description="a model of the recipe that has files, or an earlier stage")
    format: Literal["gguf"] = Field(default="gguf", description="format of the file")
    quant: Quant = Field(default="q8_0", description="number format of the matrices; vectors stay in f32")
    calibration: str | None = Field(
        default=None,
        description="stage that makes rows: matrices are rounded so that their outputs on them change least (GPTQ)",
    )

    @property
    def starts_from(self) -> str:
        """Return the model or stage that is exported."""
        return self.from_

    def inputs(self, recipe: "Recipe") -> list[str]:
        return [self.from_, *([self.calibration] if self.calibration is not None else [])]

    @property
    def declared_flops(self) -> float | None:
        """Return zero: nothing is trained. What calibration takes depends on its texts."""
        return 0.0 if self.calibration is None else None

    def depends_on_seed(self, recipe: "Recipe") -> bool:
        """Return whether texts are drawn."""
        return self.calibration is not None

    def charged(self, recipe: "Recipe") -> list[str]:
        return self.inputs(recipe)

    def check(self, check: "Check", place: Place) -> None:
        check.model_before("from", self.from_, *place, "from")
        model = check.recipe.models.get(self.from_)
        if model is not None and (model.new is not None or model.endpoint is not None):
            what = f"from '{self.from_}' is a model without files"
            raise check.refuse(f"{what}; name a stage, or a model with folder, gguf or hub", *place, "from")
        if self.calibration is not None:
            check.rows_before("calibration", self.calibration, *place, "calibration")
            if not self.quant.startswith("q"):
                what = f"calibration fits blocks of q8_0, q5_0 and q4_0, and {self.quant} has none"
                raise check.refuse(f"{what}; leave calibration out", *place, "calibration")

    def check_machine(self, check: "Check", place: Place, ask_hub: bool) -> None:
        if find_spec("gguf") is None:
            what = f"stage {self.name} writes a GGUF file, which needs the package gguf"
            raise check.refuse(f"{what}: pip install 'smallwit[gguf]'", *place)

    def run(self, job: Job, reporter: Reporter) -> Info:
        """Export, read back, and publish."""
        from smallwit.stages.export.run import run

        return run(self, job, reporter)
