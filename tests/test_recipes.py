"""The recipe that lesson 03 recommends, over three seeds."""

import pytest
import recipes


@pytest.mark.slow
def test_muon_needs_fewer_tokens_than_adamw():
    shares = recipes.main(["--seeds", "3"])
    assert None not in shares and max(shares) <= 0.6
