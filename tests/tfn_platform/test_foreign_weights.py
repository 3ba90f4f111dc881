"""Files of torch, new and old, and pickles of arrays; whatever else they ask for is refused."""

import os
import pickle
import re
import tomllib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tfn_platform.errors import DataError
from tfn_platform.foreign_weights import STATE_KEYS, read_foreign_weights
from tfn_platform.store import Store, bytes_hash

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
    with pytest.raises(
        DataError, match=r"asks for numpy\.\S+, .*tensors alone .* under .*state_dict"
    ):
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


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(2, np.longdouble), "b holds numbers that torch has not: float128"),
        (10**30, "b holds numbers that torch has not: object"),
        (2**63, "b holds numbers that torch has not: uint64"),
        (np.full(2, 2**63, np.uint64), "b holds numbers that torch has not: uint64"),
    ],
)
def test_numbers_that_torch_has_not(tmp_path: Path, value: Any, message: str) -> None:
    """They once ended in numpy's or torch's own error, without the file's name."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"a": np.ones(1), "b": value}))
    with pytest.raises(DataError, match=rf"weights\.pkl: {message}"):
        read(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(3).to_sparse(), "got torch.float32, torch.sparse_coo, on cpu"),
        (torch.ones(2).to(torch.float8_e4m3fn), "got torch.float8_e4m3fn"),
        (torch.empty(2, device="meta"), "got torch.float32, torch.strided, on meta"),
        (torch.ones(2, dtype=torch.complex64), "got torch.complex64"),
    ],
)
def test_tensors_that_no_network_reads(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=rf"weights\.pyth: b must be a dense tensor .*{message}"):
        read(saved(tmp_path, {"a": torch.ones(1), "b": tensor}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_other_precisions_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    (tensor,) = read(saved(tmp_path, {"a": torch.ones(2, dtype=dtype)})).values()
    assert tensor.dtype == dtype


def test_numbers_that_are_none_are_left_to_others(tmp_path: Path) -> None:
    """Whether they may be there depends on the tensor."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"a": np.array([np.nan, np.inf]), "b": np.uint64(2**63 - 1)}))
    found = read(path)
    assert found["a"].isnan().tolist() == [True, False]
    assert found["b"] == 2**63 - 1


def test_a_file_that_has_changed(tmp_path: Path) -> None:
    """Else weights would be kept under the hash of others."""
    path = saved(tmp_path, dict(STATE))
    store = Store.open(str(tmp_path))
    planned = bytes_hash(path.read_bytes())
    check(read_foreign_weights(store, path.name, content_hash=planned))
    saved(tmp_path, {"a": torch.zeros(2, 3)})
    with pytest.raises(DataError, match=rf"has changed since the run was planned \({planned}, now"):
        read_foreign_weights(store, path.name, content_hash=planned)


def test_letters_alone_make_no_archive(tmp_path: Path) -> None:
    """A pickle may begin with PK, too: P takes the line as a name."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"PK of nothing\n.")
    with pytest.raises(DataError, match="not a readable pickle"):
        read(path)


def test_no_torch_is_allowed_whose_reading_a_file_can_subvert(repository: Path) -> None:
    """Below 2.6 and below 2.10, `weights_only` let a file run code or write into memory."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(repository / "constraints.txt").read_text().splitlines()]
    for name, lowest in (("torch", (2, 10)), ("torchvision", (0, 25))):
        found = [re.match(rf"{name}>=(\d+)\.(\d+)", line) for line in lines]
        versions = [(int(match[1]), int(match[2])) for match in found if match]
        assert versions == [lowest, lowest]


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
