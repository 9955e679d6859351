"""The course on a CUDA GPU: `make gpu-check`. Writes gpu-check.json, from which README.md's table is filled."""

import gpu_check
import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here, so nothing was run"),
]


@pytest.mark.parametrize("piece", gpu_check.LIMITS)
def test_on_the_gpu(piece):
    done = gpu_check.run_piece(piece)
    gpu_check.add_to_report(piece, done)
    assert gpu_check.complaints(piece, done) == []
