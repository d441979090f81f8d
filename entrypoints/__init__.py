"""Thin commands over worldrep: parse, call, print. They run from the source tree as it is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
