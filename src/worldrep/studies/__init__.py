"""Studies: train, evaluate and extract many models with one command, each step once.

Imports: executors, stages, tracking and below.
"""

from worldrep.studies.definition import (
    Definition,
    builtin_names,
    load_definition,
    named_study,
)
from worldrep.studies.graph import Graph, Shard, Step, expand
