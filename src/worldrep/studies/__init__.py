"""Studies: many models by one command, each trained, evaluated and extracted once."""

from worldrep.studies.definition import Definition, builtin_names, load_definition
from worldrep.studies.graph import Graph, Step, expand
from worldrep.studies.shards import Shard

__all__ = ["Definition", "Graph", "Shard", "Step", "builtin_names", "expand", "load_definition"]
