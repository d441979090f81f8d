"""Reading from the store: which runs an analysis uses, their numbers, and what is missing.

May import analysis.options, analysis.statistics and worldrep; it reads and does not compute.
"""
