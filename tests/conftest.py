"""What several test files share."""

import hypothesis
import pytest

from worldrep.world import build_world

hypothesis.settings.register_profile("worldrep", deadline=None, derandomize=True)
hypothesis.settings.load_profile("worldrep")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Row sets of the tests are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLDREP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def paper_world():
    return build_world("paper")


@pytest.fixture(scope="session")
def mini_world():
    return build_world("mini")
