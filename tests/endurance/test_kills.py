"""Commands and their workers, killed at random moments until they are done.

WORLDREP_LIVES says how many works of each command `make endure` kills.
"""

import os
import random
import time

import psutil
import pytest
from real_commands import again, assert_same, begin, prepare, results, write_files
from real_commands import undisturbed as undisturbed  # a fixture

from worldrep.tracking import Store

LIVES = int(os.environ.get("WORLDREP_LIVES", "12"))
MOST_KILLS = 4  # of one work; what is left after them is done undisturbed


def kill_one(command, moments):
    """Start the command, and kill it or one of its workers; False if it ended before."""
    process = begin(command)
    end = time.monotonic() + moments.uniform(1, 12)  # while it starts, trains, stores, evaluates
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    alive = process.poll() is None
    if alive:
        driver = psutil.Process(process.pid)
        workers = driver.children(recursive=True)
        victim = moments.choice([driver, driver, *workers])
        victim.kill()
        if victim == driver:
            psutil.wait_procs(workers)  # they follow their driver
    output, _ = process.communicate()
    assert "Traceback" not in output
    return alive


@pytest.mark.endure
@pytest.mark.parametrize("life", range(LIVES))
@pytest.mark.parametrize("command", ["pretrain", "evaluate", "study"])
def test_what_is_killed_ends_like_what_is_not(command, life, store_uri, undisturbed, tried):
    moments = random.Random(f"{command} {life}")
    write_files()
    prepare(command)
    kills = 0
    try:
        while kills < MOST_KILLS and kill_one(command, moments):
            kills += 1
        again(command)
        assert_same(results(Store.connect()), undisturbed(command))
    finally:
        tried("kills at random moments", kills)
