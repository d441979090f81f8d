"""The public API: imported lazily, from the package root."""

import subprocess
import sys

import pytest

import worldrep


def run(program):
    """What a fresh Python process prints."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        _ = worldrep.generat


def test_importing_the_package_loads_nothing_heavy():
    program = (
        "import sys; import worldrep\n"
        "print(*({'torch', 'mlflow', 'numpy', 'pandas', 'click'} & set(sys.modules)))"
    )
    assert run(program) == []


def test_names_of_tasks_do_not_need_torch():
    program = "import sys; from worldrep import TASKS; print(*TASKS, 'torch' in sys.modules)"
    assert run(program)[-1] == "False"


def test_the_core_works_without_mlflow():
    program = (
        "import sys; sys.modules['mlflow'] = None\n"
        "import worldrep\n"
        "print(*(getattr(worldrep, name) is not None for name in worldrep.__all__))"
    )
    assert set(run(program)) == {"True"}
