"""Files of torch, new and old, and pickles of arrays; whatever else they ask for is refused."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tfn_platform.errors import DataError
from tfn_platform.foreign_weights import STATE_KEYS, read_foreign_weights
from tfn_platform.store import Store

STATE = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor(7))


def read(path: Path) -> dict[str, torch.Tensor]:
    return read_foreign_weights(Store.open(str(path.parent)), path.name)


def saved(folder: Path, content: Any, **how: Any) -> Path:
    path = folder / "weights.pyth"
    torch.save(content, path, **how)
    return path


def check(found: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("key", [None, *STATE_KEYS])
def test_files_of_torch(tmp_path: Path, key: str | None, is_new: bool) -> None:
    """Before 1.6, torch wrote another format, which PySlowFast's older files have."""
    content = dict(STATE) if key is None else {"epoch": 3, key: STATE, "cfg": "NUM_GPUS: 8"}
    check(read(saved(tmp_path, content, _use_new_zipfile_serialization=is_new)))


def test_a_whole_training_state(tmp_path: Path) -> None:
    """As PySlowFast saves one."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    content = {"epoch": 1, "model_state": STATE, "optimizer_state": optimizer.state_dict()}
    check(read(saved(tmp_path, content)))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_arrays(tmp_path: Path, protocol: int) -> None:
    """As caffe2 saved them; numbers between the arrays are tensors without an axis."""
    arrays = {name: tensor.numpy() for name, tensor in STATE.items()}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"blobs": arrays, "cfg": "text"}, protocol))
    check(read(path))
    path.write_bytes(pickle.dumps({"a": arrays["a"].astype(">f4"), "b": np.uint16(7)}, protocol))
    check(read(path))
    path.write_bytes(pickle.dumps({"a": arrays["a"], "b": 7}, protocol))
    check(read(path))


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["new", "old", "pickle"])
def test_nothing_is_run(tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    content = {"model_state": STATE, "more": Malicious(f"touch {victim}")}
    path = tmp_path / "weights.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content["more"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "new")
    with pytest.raises(DataError, match=rf"weights\.pth: the \w+ asks for {os.name}\.system"):
        read(path)
    assert not victim.exists()


def test_a_refused_name_comes_with_the_way_out(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": STATE, "message_hub": {"loss": np.float64(0.5)}})
    with pytest.raises(DataError, match=r"asks for numpy\.\S+, .*\['state_dict'\], new_path\)"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dictionary of tensors, got a list"),
        ({}, "what is no tensor: nothing"),
        ({"model_state": {}}, "what is no tensor: nothing"),
        ({"net": {"a": torch.ones(1)}, "epoch": 1}, "no tensor: 'net'"),
        ({"state_dict": {"a": "text", "b": torch.ones(1)}}, "no tensor: 'a'"),
    ],
)
def test_files_without_a_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(saved(tmp_path, content))


def test_arrays_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"a": np.array(["text"]), "b": np.ones(1, np.complex64)}))
    with pytest.raises(DataError, match="no tensor: 'a', 'b'"):
        read(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.pth: cannot be read"):
        read(tmp_path / "missing.pth")
    path = saved(tmp_path, dict(STATE))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="not a readable file of torch"):
        read(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match="not a readable pickle"):
        read(path)
