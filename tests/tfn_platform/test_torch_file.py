"""Files of torch are loaded, or refused with the way out; nothing in them runs."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tfn_platform.errors import DataError
from tfn_platform.torch_file import SHOWN_OF_TORCH, load_torch

FORMATS = pytest.mark.parametrize("is_zip", [True, False])


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def saved(value: Any, *, is_zip: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


@FORMATS
def test_what_was_saved_comes_back(is_zip: bool) -> None:
    found = load_torch(saved({"a": torch.arange(3), "epoch": 2}, is_zip=is_zip))
    assert found["a"].tolist() == [0, 1, 2] and found["epoch"] == 2


@FORMATS
def test_what_would_run_is_refused_with_the_way_out(tmp_path: Path, is_zip: bool) -> None:
    data = saved(_Runs(tmp_path / "trap"), is_zip=is_zip)
    with pytest.raises(DataError, match=r"asks for \w+\.mkdir, .* alone where it was made$"):
        load_torch(data)
    with pytest.raises(DataError, match="alone where it was made: a dictionary of them$"):
        load_torch(data, saved_as="a dictionary of them")
    assert not (tmp_path / "trap").exists()


@FORMATS
def test_damage_is_said_in_few_words(is_zip: bool) -> None:
    data = saved(torch.arange(100), is_zip=is_zip)
    for wrong in (b"", b"text", data[: len(data) // 2]):
        with pytest.raises(DataError, match="not a readable file of torch: ") as caught:
            load_torch(wrong)
        assert len(str(caught.value)) < SHOWN_OF_TORCH + 50
