"""Compare a tiny random model of every causal family of transformers with its own forward pass.

    python benchmarks/families.py            # writes src/smallwit/training/families.json and docs/models.md
    python benchmarks/families.py qwen2 lfm2 # prints these alone

Ends with status 1 if a family that was supported no longer is, or fewer than 25 are.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from smallwit.training.families import TOLERANCE, FamilyCheck, check_family

ROOT = Path(__file__).parents[1]
TABLE, PAGE = ROOT / "src/smallwit/training/families.json", ROOT / "docs/models.md"
FEWEST = 25
BEGIN, END = "<!-- table: make check-families -->", "<!-- end of the table -->"

HYBRID = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
SETTINGS: dict[str, dict[str, Any]] = {
    # What a family's published models use, and its configuration leaves off by default.
    "falcon_h1": {"lm_head_multiplier": 0.1},
    "granite": {"logits_scaling": 8.0},
    "granitemoe": {"logits_scaling": 8.0},
    "granitemoehybrid": {
        "logits_scaling": 8.0,
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "granitemoeshared": {"logits_scaling": 8.0},
    "hunyuan_v1_dense": {"head_dim": 64},
    "hunyuan_v1_moe": {"head_dim": 64},
    "hyperclovax": {"logits_scaling": 0.125},
    "lfm2": HYBRID,
    "lfm2_moe": HYBRID,
    "ministral": {"head_dim": 64},
    "nemotron": {"head_dim": 64, "num_key_value_heads": 8},
    "phi3": {"sliding_window": 2048},
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": 4096,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "starcoder2": {"sliding_window": 4096},
}
LARGE = {
    "blt": "a model of bytes with several parts",
    "ctrl": "its sizes do not shrink",
    "phi4_multimodal": "a model of images, sound and text",
    "xlm": "its sizes do not shrink",
}
"""Families of which no tiny model is made, and why."""


def checked(name: str) -> FamilyCheck:
    """Check one family, by its own default configuration and the settings above."""
    if name in LARGE:
        return FamilyCheck(refused=f"no tiny model of it can be made: {LARGE[name]}")
    try:
        config = CONFIG_MAPPING[name](**SETTINGS.get(name, {}))
    except Exception as error:  # noqa: BLE001 a family's own code may fail in any way; its reason goes into the table
        return FamilyCheck(refused=f"no tiny model of it can be made: {type(error).__name__}")
    return check_family(config)


def row(name: str, check: FamilyCheck) -> str:
    """Write one line of the table."""
    if check.refused is not None:
        return f"| `{name}` | refused | | | {' '.join(check.refused.replace('|', '/').split())} |"
    packed = "refused" if check.packed is None else f"{check.packed:.1e}"
    note = "keeps a state: rows are not packed" if check.packed is None else ""
    return f"| `{name}` | {check.padded:.1e} | {packed} | {check.stepwise:.1e} | {note} |"


def write(found: dict[str, FamilyCheck]) -> None:
    """Write the table for the program and for the reader."""
    right = [name for name, check in found.items() if check.refused is None]
    table = {"transformers": transformers.__version__, "supported": right}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    order = sorted(found.items(), key=lambda item: (item[1].refused is not None, item[0]))
    lines = [
        BEGIN,
        f"transformers {transformers.__version__}: {len(right)} of {len(found)} families are supported.",
        f"Largest difference of a log-prob, in nats; {TOLERANCE:g} is the bound.",
        "",
        "| model type | padded | packed | step by step | |",
        "| --- | --- | --- | --- | --- |",
        *(row(name, check) for name, check in order),
        END,
    ]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + "\n".join(lines) + rest.partition(END)[2], encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*")
    only = parser.parse_args().families
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    found = {}
    for name in only or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        found[name] = checked(name)
        print(row(name, found[name]), flush=True)
    if only:
        return 0
    supported = {name for name, check in found.items() if check.refused is None}
    before = json.loads(TABLE.read_text(encoding="utf-8"))["supported"] if TABLE.is_file() else []
    lost = sorted(set(before) - supported)
    write(found)
    print(f"{len(supported)} families are supported, {len(found) - len(supported)} refused")
    print(f"lost: {', '.join(lost) or 'none'}")
    return 1 if lost or len(supported) < FEWEST else 0


if __name__ == "__main__":
    sys.exit(main())
