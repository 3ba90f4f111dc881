"""Checkpoints: what is saved comes back, and nothing else is unpickled."""

import pickle
from pathlib import Path

import pytest
import torch

from tfn_platform.checkpoint import load_torch, save_torch, weights_hash
from tfn_platform.errors import TableError
from tfn_platform.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def test_tensors_and_plain_values_come_back(store: Store) -> None:
    content = {"w": torch.randn(3, 2), "n": [1, 2.5, "x", None], "d": {"i": torch.arange(2)}}
    first = save_torch(store, "a/b.pt", content)
    loaded = load_torch(store, "a/b.pt")
    assert torch.equal(loaded["w"], content["w"])
    assert loaded["n"] == content["n"]
    assert torch.equal(loaded["d"]["i"], torch.arange(2))
    assert first == save_torch(store, "again.pt", content)
    assert first != save_torch(store, "other.pt", {**content, "w": torch.zeros(3, 2)})


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


def test_what_is_no_checkpoint_is_refused_and_not_executed(store: Store, tmp_path: Path) -> None:
    torch.save({"w": Bomb()}, tmp_path / "bomb.pt")
    store.write_bytes("damaged.pt", (tmp_path / "bomb.pt").read_bytes()[:100])
    store.write_bytes("pickle.pt", pickle.dumps(Bomb()))
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("bomb.pt", "damaged.pt", "pickle.pt", "list.pt"):
        with pytest.raises(TableError, match=f"{name}: not a checkpoint of this program"):
            load_torch(store, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_weights_hash_depends_on_values_only(dtype: torch.dtype) -> None:
    """bfloat16 weights ended in a TypeError."""
    values = torch.tensor([[0, 1, 0], [1, 1, 0]]).to(dtype)
    state = {"a": values, "b": torch.tensor(3.0)}
    expected = weights_hash(state)
    assert weights_hash({"b": torch.tensor(3.0), "a": values.clone()}) == expected
    assert weights_hash({**state, "a": values.t().contiguous().t()}) == expected
    assert weights_hash({**state, "b": torch.tensor(3.0).nextafter(torch.tensor(4.0))}) != expected
    assert weights_hash({"c": values, "b": state["b"]}) != expected
