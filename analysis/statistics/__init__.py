"""The formulas of the study: pure functions from numbers to numbers."""
