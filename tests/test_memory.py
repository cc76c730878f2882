"""Too little memory is one sentence with the field to lower; all else is not touched."""

import pytest
import torch

from spro_hf.errors import UserError
from spro_hf.memory import needing


def test_an_allocation_that_fails_names_the_field():
    with pytest.raises(UserError, match=r"generator\.batch_size: there is not enough memory; lower it \(now 64\)"):  # noqa: SIM117
        with needing("generator.batch_size", 64):
            torch.empty(1 << 60, dtype=torch.uint8)


def test_the_innermost_field_is_named_and_other_errors_fly():
    with pytest.raises(UserError, match=r"^guider\.batch_size: "), needing("outer"), needing("guider.batch_size"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError, match="shapes"), needing("outer"):
        raise RuntimeError("shapes differ")
