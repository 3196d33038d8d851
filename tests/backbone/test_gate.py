"""The load-time gate passes every family in each dtype, and stops a model whose keys it cannot move."""

from dataclasses import replace

import pytest
import torch

from graphflow.backbone.compat import UnsupportedModelError
from graphflow.backbone.gate import TOLERANCE, check_frame, frame_error
from tests.tiny import FAMILIES, tiny_backbone


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_families_pass(family, dtype):
    backbone = tiny_backbone(family, dtype)
    check_frame(backbone)
    assert frame_error(backbone) <= TOLERANCE[dtype]


def test_wrong_frequencies_are_stopped_with_a_sentence():
    backbone = tiny_backbone()
    backbone.rope = replace(backbone.rope, inv_freq=backbone.rope.inv_freq * 1.1)
    assert frame_error(backbone) > 0.01
    with pytest.raises(UnsupportedModelError, match=r"layer 0 differ by .* 0.001 is allowed in torch.float32"):
        check_frame(backbone)
