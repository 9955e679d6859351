"""tests/warm.py: what the tests fork from has imported and prepared everything."""

import gc
import sys

import pytest
import warm


def say_what_is_there():
    print(*[name for name in warm.PRELOADED if name not in sys.modules], gc.get_freeze_count() > 100_000)


@pytest.mark.skipif(not warm.CAN_FORK, reason="nothing is forked here")
def test_a_forked_process_finds_everything_imported():
    assert warm.run(say_what_is_there).output == "True\n"
