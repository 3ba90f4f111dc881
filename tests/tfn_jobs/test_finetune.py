"""What fine-tuning starts from; the training itself is part of the whole runs in `tests/`."""

import json
from pathlib import Path

import pytest
import torch

from tfn_jobs.finetune import _initial_model
from tfn_jobs.pipeline_spec import BackboneSpec
from tfn_platform.errors import TableError

NAMES = Path(__file__).resolve().parent.parent / "data" / "slowfast_r50_spec.json"
NUM_CLASSES = 7


def checkpoint_in(folder: Path) -> Path:
    """A file as pytorchvideo publishes them: its names below "model_state"."""
    generator = torch.Generator().manual_seed(0)
    shapes = dict(json.loads(NAMES.read_text()))
    state = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    path = folder / "SLOWFAST_8x8_R50.pyth"
    torch.save({"model_state": state}, path)
    return path


def spec_with(checkpoint: Path) -> BackboneSpec:
    return BackboneSpec(architecture="slowfast_r50", checkpoint=str(checkpoint))


@pytest.mark.slow
def test_a_checkpoint_gives_all_but_the_classes(tmp_path: Path) -> None:
    path = checkpoint_in(tmp_path)
    published = torch.load(path, weights_only=True)["model_state"]
    torch.manual_seed(1)
    model = _initial_model(spec_with(path), num_classes=NUM_CLASSES)
    stem = published["blocks.0.multipathway_blocks.0.conv.weight"]
    assert torch.equal(model.slow_stem.conv.weight, stem)
    assert model.projection.weight.shape == (NUM_CLASSES, model.feature_dim)
    as_it_is = _initial_model(spec_with(path), num_classes=None)
    assert torch.equal(as_it_is.projection.weight, published["blocks.6.proj.weight"])


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pyth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(TableError, match="weights.pyth"):
        _initial_model(spec_with(path), num_classes=NUM_CLASSES)
