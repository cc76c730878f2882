"""What tests of several rooms share."""

import pytest
import torch

from spro_hf.tiny.make.generator import build


@pytest.fixture(scope="session")
def sd3_folder(tmp_path_factory):
    """A saved tiny SD3 pipeline whose last layer is not zero, so that it predicts something."""
    pipe = build()
    torch.manual_seed(1)
    torch.nn.init.normal_(pipe.transformer.proj_out.weight, std=0.1)
    folder = tmp_path_factory.mktemp("sd3")
    pipe.save_pretrained(folder)
    return folder
