"""What is converted stays in the test's own folder."""

import pytest
from huggingface_hub import constants


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setattr(constants, "HF_HOME", str(folder))
    return folder / "spro_hf"
