"""Figures and tables from the store: store -> tidy table -> matrix -> figure.

The analyses run from the source tree as it is, installed or not.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
