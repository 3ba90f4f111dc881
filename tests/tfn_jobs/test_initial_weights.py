"""What a pipeline starts from: each program's file, read strictly, or a message that says why."""

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tfn_jobs.conftest import MakeSpec
from tests.tfn_models.backbones.checkpoints.name_rules import RULES, Network, named_shapes
from tfn_jobs.backbones import ARCHITECTURES, CONFIG_FILE, write_network_config
from tfn_jobs.initial_weights import initial_backbone, read_initial_weights
from tfn_jobs.pipeline import Pipeline
from tfn_jobs.pipeline_spec import BackboneSpec
from tfn_models.backbones import build_backbone
from tfn_models.backbones.slowfast import SLOWFAST_TINY
from tfn_platform.checkpoint import save_torch
from tfn_platform.errors import DataError
from tfn_platform.store import Store

TINY = replace(SLOWFAST_TINY, num_classes=11)
# What PySlowFast and its kin would have trained, whose slow frames are others.
SPREAD = replace(TINY, slow_sampling="linspace")
# Names depend on the depths alone.
NAMES = Network(depths=TINY.depths)


def tiny_state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    state = build_backbone(TINY).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.endswith("tracked")}


def content_of(scheme: str) -> Any:
    """A file's content, as the scheme's program writes it."""
    rename = dict(zip(named_shapes("own", NAMES), named_shapes(scheme, NAMES), strict=True))
    state = {rename[name]: tensor for name, tensor in tiny_state().items()}
    if scheme == "caffe2":
        return {"blobs": {name: tensor.numpy() for name, tensor in state.items()}}
    if scheme == "mmaction2":
        fast = state["cls_head.fc_cls.weight"][:, -TINY.feature_dim // 3 :]
        slow = state["cls_head.fc_cls.weight"][:, : -TINY.feature_dim // 3]
        state["cls_head.fc_cls.weight"] = torch.cat([fast, slow], dim=1)
        return {"meta": {"epoch": 4}, "state_dict": state}
    if scheme == "own":
        return state
    return {"epoch": 1, "model_state": state, "optimizer_state": {"state": {}}, "cfg": "TEXT: 1"}


def file_of(folder: Path, scheme: str) -> Path:
    path = folder / f"weights.{'pkl' if scheme == 'caffe2' else 'pyth'}"
    if scheme == "caffe2":
        path.write_bytes(pickle.dumps(content_of(scheme), 2))
    else:
        torch.save(content_of(scheme), path)
    return path


def spec_with(checkpoint: Path | None, architecture: str = "slowfast_tiny") -> BackboneSpec:
    path = None if checkpoint is None else str(checkpoint)
    return BackboneSpec(architecture=architecture, checkpoint=path)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture with the slow frames of PySlowFast, as small as ours."""
    monkeypatch.setitem(ARCHITECTURES, "slowfast_tiny", replace(SPREAD, num_classes=400))


def assert_tiny(found: dict[str, Tensor], *, with_projection: bool = True) -> None:
    for name, tensor in tiny_state().items():
        if with_projection or not name.startswith("projection."):
            assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("scheme", RULES)
def test_each_programs_file(
    tmp_path: Path, scheme: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights with the file's classes, or as many; silently, as nothing is left out."""
    expected = TINY if scheme in ("own", "mmaction2") else SPREAD
    monkeypatch.setitem(ARCHITECTURES, "slowfast_tiny", replace(expected, num_classes=400))
    path = file_of(tmp_path, scheme)
    for num_classes in (None, 11):
        model = initial_backbone(spec_with(path), num_classes=num_classes)
        assert model.config == expected
        assert_tiny(model.state_dict())
    assert capsys.readouterr().out == ""


def test_other_slow_frames_are_another_network(tmp_path: Path) -> None:
    """A file's tensors do not show them, but whose names they have does."""
    for scheme in ("pytorchvideo", "pyslowfast", "caffe2"):
        with pytest.raises(DataError, match="slow_sampling is linspace, asked for is stride"):
            read_initial_weights(spec_with(file_of(tmp_path, scheme)))


@pytest.mark.usefixtures("spread")
def test_other_classes_get_a_new_projection_and_are_told(tmp_path: Path, capsys: Any) -> None:
    path = file_of(tmp_path, "pyslowfast")
    model = initial_backbone(spec_with(path), num_classes=7)
    assert model.config == replace(SPREAD, num_classes=7)
    assert model.projection.weight.shape == (7, model.feature_dim)
    assert_tiny(model.state_dict(), with_projection=False)
    said = capsys.readouterr().out
    assert "(PySlowFast's names): a new projection for 7 classes" in said
    assert "left out: head.projection.weight, head.projection.bias" in said


def test_features_alone_of_a_detector(tmp_path: Path, capsys: Any) -> None:
    """What comes after the features is left out by name; the architecture's classes are made."""
    content = content_of("mmaction2")["state_dict"]
    for tensor in ("weight", "bias"):
        del content[f"cls_head.fc_cls.{tensor}"]
        content[f"roi_head.bbox_head.fc_cls.{tensor}"] = torch.ones(3)
    path = tmp_path / "detector.pth"
    torch.save({"state_dict": content}, path)
    model = initial_backbone(spec_with(path), num_classes=None)
    assert model.config == SLOWFAST_TINY
    assert_tiny(model.state_dict(), with_projection=False)
    assert "left out: roi_head.bbox_head.fc_cls.weight, roi_head" in capsys.readouterr().out


def test_a_projection_beside_another_head_is_not_trusted(tmp_path: Path, capsys: Any) -> None:
    """What it was trained on, together with that head, nobody knows."""
    state = content_of("mmaction2")["state_dict"] | {"roi_head.fc.weight": torch.ones(3)}
    path = tmp_path / "detector.pth"
    torch.save({"state_dict": state}, path)
    model = initial_backbone(spec_with(path), num_classes=None)
    assert model.config == TINY
    assert not torch.equal(model.projection.weight, tiny_state()["projection.weight"])
    names = "cls_head.fc_cls.weight, cls_head.fc_cls.bias, roi_head.fc.weight"
    assert f"for 11 classes; left out: {names}" in capsys.readouterr().out


def test_without_a_checkpoint_the_seed_decides() -> None:
    torch.manual_seed(3)
    assert_tiny(initial_backbone(spec_with(None), num_classes=11).state_dict())
    assert initial_backbone(spec_with(None), num_classes=None).config == SLOWFAST_TINY


@pytest.mark.usefixtures("spread")
@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("slowfast_r50", r"depths is \(1, 1, 1, 1\), asked for is \(3, 4, 6, 3\); slow_channels"),
        ("i3d_r50", "it is a SlowFast, asked for is a I3dResNet"),
    ],
)
def test_another_architecture(tmp_path: Path, architecture: str, message: str) -> None:
    path = file_of(tmp_path, "pytorchvideo")
    with pytest.raises(DataError) as caught:
        read_initial_weights(spec_with(path, architecture))
    text = str(caught.value)
    assert text.startswith(f"{path}: the network of these weights, in pytorchvideo's names, is not")
    assert text.endswith("What would fit: architecture: slowfast_tiny")
    assert caught.match(message)


def test_a_plan_reads_the_checkpoint_that_is_to_be_used(
    tmp_path: Path, store: Store, make_spec: MakeSpec
) -> None:
    """Before Ray starts and videos are read; not any more once the stage is made."""
    backbone = {"architecture": "slowfast_r50", "checkpoint": str(file_of(tmp_path, "own"))}
    pipeline = Pipeline.open(make_spec(backbone=backbone), store)
    with pytest.raises(DataError, match="is not slowfast_r50: depths is"):
        pipeline.plan()
    assert Pipeline.open(make_spec(backbone=backbone, until="prepare"), store).plan()
    pipeline.stages.finetune.folder(store).commit({})
    assert pipeline.plan()
    fitting = {**backbone, "architecture": "slowfast_tiny"}
    assert Pipeline.open(make_spec(backbone=fitting), store).plan()


def test_our_own_weights_beside_their_config(tmp_path: Path, store: Store) -> None:
    """Other means than the weights were fine-tuned with once went unseen into the features."""
    folder = store.stage("finetune", "key")
    path = tmp_path / "root" / folder.weights
    save_torch(store, folder.weights, tiny_state())
    trained = replace(TINY, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    write_network_config(folder, trained)
    spec = BackboneSpec(checkpoint=str(path), architecture="slowfast_tiny", mean=0.5, std=0.25)
    assert_tiny(initial_backbone(spec, num_classes=None).state_dict())
    with pytest.raises(DataError) as caught:
        read_initial_weights(spec_with(path))
    expected = (
        f"{path}: by the backbone.json beside them, these weights were made for another network "
        "than the spec asks for: mean is (0.5, 0.5, 0.5), asked for is (0.45, 0.45, 0.45); "
        "std is (0.25, 0.25, 0.25), asked for is (0.225, 0.225, 0.225). Change the spec"
    )
    assert str(caught.value).startswith(expected)
    write_network_config(folder, replace(TINY, slow_sampling="linspace"))
    with pytest.raises(DataError, match="slow_sampling is linspace, asked for is stride"):
        read_initial_weights(spec_with(path))
    store.write_json(folder.file(CONFIG_FILE), 5)
    with pytest.raises(DataError, match="it describes no SlowFast"):
        read_initial_weights(spec_with(path))
    store.delete_file(folder.file(CONFIG_FILE))
    assert_tiny(dict(read_initial_weights(spec_with(path)).state))


def test_another_programs_weights_beside_a_config_of_ours(tmp_path: Path) -> None:
    """It is not theirs."""
    (tmp_path / CONFIG_FILE).write_text('{"mean": [0, 0, 0]}')
    assert_tiny(dict(read_initial_weights(spec_with(file_of(tmp_path, "mmaction2"))).state))


def test_a_network_that_no_architecture_has(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(build_backbone(replace(TINY, depths=(1, 2, 1, 1))).state_dict(), path)
    with pytest.raises(DataError, match="What would fit: no architecture of ours"):
        read_initial_weights(spec_with(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a checkpoint", r"weights\.pyth: not a readable pickle"),
        ({"encoder.weight": torch.ones(1)}, r"weights\.pyth: tensors must have the names of own"),
        ({"slow_stem.conv.weight": torch.ones(1, 3, 1, 1, 1)}, r"stages\.0 must hold blocks 0"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "weights.pyth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(DataError, match=message):
        initial_backbone(spec_with(path), num_classes=5)


def test_a_malicious_file_runs_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"

    class Malicious:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {victim}",)

    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"blobs": {"conv1_w": Malicious()}}, 2))
    with pytest.raises(DataError, match=rf"weights\.pkl: the pickle asks for {os.name}\.system"):
        initial_backbone(spec_with(path), num_classes=5)
    assert not victim.exists()


def test_torchvisions_file(tmp_path: Path, capsys: Any) -> None:
    from torchvision.models import video

    path = tmp_path / "r3d_18.pth"
    theirs = video.r3d_18(weights=None, num_classes=6)
    torch.save(theirs.state_dict(), path)
    spec = spec_with(path, "r3d_18")
    model = initial_backbone(spec, num_classes=None).eval()
    clips = torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(clips), theirs.eval()(clips))
    assert capsys.readouterr().out == ""
    assert initial_backbone(spec, num_classes=2).projection.out_features == 2
    assert "left out: fc.weight, fc.bias" in capsys.readouterr().out
    torch.save(model.state_dict(), path)
    again = initial_backbone(spec, num_classes=None)
    assert torch.equal(again.projection.weight, model.projection.weight)
    wrapped = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save(wrapped, path)
    assert initial_backbone(spec, num_classes=None).projection.out_features == 6
    state = theirs.state_dict()
    for shape in ((6, 512, 1), (6, 512, 1, 1, 2), (6,)):
        torch.save({**state, "fc.weight": torch.ones(shape)}, path)
        with pytest.raises(DataError, match=r"not r3d_18's: projection\.weight is \["):
            initial_backbone(spec, num_classes=None)
    del state["fc.weight"], state["fc.bias"]
    torch.save(state, path)
    assert initial_backbone(spec, num_classes=None).projection.out_features == 400
    del state["layer1.0.conv1.0.weight"]
    torch.save(state, path)
    with pytest.raises(DataError, match=r"not r3d_18's: network\.layer1.0.conv1.0.weight is miss"):
        initial_backbone(spec, num_classes=None)
