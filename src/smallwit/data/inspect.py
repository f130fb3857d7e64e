"""`smallwit data inspect`: what a dataset holds, on the terminal and as one offline page."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from smallwit.data.build import build
from smallwit.data.dataset import read_dataset, shards_of
from smallwit.data.step import World, texts
from smallwit.rows import Row

SHOWN = 20
_BATCH = 256
