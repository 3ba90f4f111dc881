"""Save and load weights and training states, atomically; unpickle tensors and numbers only."""

import hashlib
import io
from typing import Any

import torch

from tfn_platform.errors import TableError
from tfn_platform.store import Store


def save_torch(store: Store, relative: str, content: dict[str, Any]) -> str:
    """Write tensors and plain values; return the hash of the file's bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    store.write_bytes(relative, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()[:16]


def load_torch(store: Store, relative: str) -> dict[str, Any]:
    """Read what `save_torch` wrote, onto the CPU."""
    data = store.read_bytes(relative)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise TableError(
            f"{store.uri(relative)}: not a checkpoint of this program: {error}"
        ) from error
    if not isinstance(content, dict):
        raise TableError(f"{store.uri(relative)}: not a checkpoint of this program")
    return content


def weights_hash(state: dict[str, torch.Tensor]) -> str:
    """A hash of the values of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        values = state[name].detach().cpu().contiguous().reshape(-1)
        # As bytes: numpy knows no bfloat16.
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
