"""Whatever is typed or written in a file ends in a result or in one sentence, and leaves no run."""

import pytest
from fuzz import CASES, try_many

from worldrep.stages import estimate
from worldrep.tracking import Store

EXAMPLES = 50


@pytest.fixture(scope="module", autouse=True)
def nothing_is_trained(new_store):
    """Work that would begin asks to be confirmed first."""
    with new_store("fuzz") as (_, patch):
        patch.setattr(estimate, "LONGEST", -1)
        yield
        assert Store.connect().find() == []


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_given_ends_in_a_result_or_in_one_sentence(case):
    try_many(case, EXAMPLES)
