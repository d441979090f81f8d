"""How many processes train one model on which GPUs, as the environment says; what is ignored.

No fingerprint has the environment. So nothing in it may change a training, apart from the number
of processes, which `accelerate launch` gives in the variables of a process group.
"""

import os
import sys
from pathlib import Path

from worldrep.errors import InputError
from worldrep.settings import whole_number

GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHERS = ("PMI_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_")  # of MPI, which accelerate reads
KEPT = ("ACCELERATE_USE_CPU", "ACCELERATE_CPU_AFFINITY")
AS_LAUNCHED = ("", "no", "false", "1", "default")  # values that `accelerate launch` sets itself
MOST_PROCESSES = 10_000


def check_environment() -> None:
    """Remove the variables that would change a training; a line names those that were set.

    Raises InputError for variables of a process group that is not complete.
    """
    names = [name for name in os.environ if name.startswith(("ACCELERATE_", *LAUNCHERS))]
    removed = {name: os.environ.pop(name) for name in names if name not in KEPT}
    meant = [name for name, value in removed.items() if value.lower() not in AS_LAUNCHED]
    if shown := [name for name in meant if not name.startswith(LAUNCHERS)]:
        print(f"ignored: {', '.join(shown)}; use the settings of the training", file=sys.stderr)
    _check_group()


def _check_group() -> None:
    ranks = {name: os.environ[name] for name in GROUP[:3] if os.environ.get(name)}
    if not ranks:
        return
    numbers = {name: whole_number(name, text, 0, MOST_PROCESSES) for name, text in ranks.items()}
    if numbers.get("WORLD_SIZE") == 1 and not numbers.get("RANK"):
        for name in GROUP:  # one process is no group
            os.environ.pop(name, None)
        return
    missing = [name for name in GROUP if not os.environ.get(name)]
    if missing or numbers["RANK"] >= numbers["WORLD_SIZE"]:
        fault = (
            f" without {', '.join(missing)}" if missing else ", but RANK is not below WORLD_SIZE"
        )
        raise InputError(
            f"the environment has {', '.join(ranks)}{fault}: start several processes with "
            "`accelerate launch`, or unset these variables"
        )


def visible_gpus() -> int:
    """Return the number of CUDA devices visible to this process, without initialising CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return sum(name.strip() not in ("", "-1") for name in visible.split(","))
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
