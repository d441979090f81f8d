"""Measurements of speed and memory; each file is a command, `python -m benchmarks.NAME`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
