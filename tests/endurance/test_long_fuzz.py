"""The test of test_fuzz.py with more examples, other ones each time."""

import pytest
from fuzz import CASES, try_many
from test_fuzz import nothing_is_trained as nothing_is_trained

EXAMPLES = 500


@pytest.mark.endure
@pytest.mark.parametrize("case", CASES)
def test_many_examples(case, tried):
    tried(f"malformed {case}", EXAMPLES)
    try_many(case, EXAMPLES, derandomize=False)
