"""The whole network: the map module against its dense form, shapes, determinism."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tfn_models.bmn.model import BmnConfig, WindowHead, build_bmn
from tfn_models.boundary_maps import valid_cells

SMALL = BmnConfig(
    feature_dim=8, num_bins=10, base_channels=12, map_channels=(5, 9, 6), num_samples=4, groups=2
)


def dense_sampling(num_bins: int, num_samples: int, positions_per_sample: int) -> Tensor:
    """[N, D, D, D] (sample, duration, start, bin), one position of all windows at a time."""
    bins = torch.arange(num_bins, dtype=torch.float64)
    length = bins[:, None] + 1
    low, high = bins - 0.5 * length, bins + bins[:, None] + 0.5 * length
    steps = num_samples * positions_per_sample - 1
    mask = torch.zeros(num_samples, num_bins, num_bins, num_bins, dtype=torch.float64)
    for number in range(steps + 1):
        position = (low + (high - low) / steps * number).unsqueeze(2)
        taps = (1 - (position - bins).abs()).clamp(min=0)
        inside_first = (position > -1) & (position < 0) & (bins == 0)
        mask[number // positions_per_sample] += taps.where(~inside_first, 1.0)
    return mask * valid_cells(num_bins)[..., None] / positions_per_sample


def dense_window_head(head: WindowHead, x: Tensor, mask: Tensor) -> Tensor:
    """[B, C, D] -> [B, 2, D, D] as the peers compute it, with cells that are no windows."""
    sequence = head.input(x).relu()
    sampled = torch.einsum("bct,ndst->bcnds", sequence, mask)
    windows = torch.einsum("bcnds,cno->bods", sampled, head.matching.weight)
    hidden = (windows + head.matching.bias[:, None, None]).relu()
    hidden = F.conv2d(hidden, head.reduce.weight[..., None, None], head.reduce.bias).relu()
    for convolution in (head.convolutions.first, head.convolutions.second):
        hidden = convolution(hidden).relu()
    return F.conv2d(hidden, head.output.weight[..., None, None], head.output.bias).sigmoid()


@pytest.mark.parametrize("num_bins", [2, 10, 23])
def test_map_module_equals_its_dense_form(num_bins: int) -> None:
    """Outputs and every gradient, also through the constant where no window exists."""
    torch.manual_seed(1)
    config = BmnConfig(
        feature_dim=8, num_bins=num_bins, base_channels=12, map_channels=(5, 9, 6), num_samples=4
    )
    head = WindowHead(config).double()
    x = torch.randn(2, 12, num_bins, dtype=torch.float64, requires_grad=True)
    valid = valid_cells(num_bins)
    expected = dense_window_head(head, x, dense_sampling(num_bins, 4, 3)) * valid
    got = torch.stack(head(x), dim=1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)

    upstream = torch.randn_like(expected)
    inputs = [x, *head.parameters()]
    gradients = torch.autograd.grad(got, inputs, upstream)
    for one, other in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_lstm_layers", [0, 1, 2])
def test_shapes_and_ranges(num_lstm_layers: int) -> None:
    torch.manual_seed(0)
    config = BmnConfig(
        feature_dim=8,
        num_bins=10,
        num_lstm_layers=num_lstm_layers,
        base_channels=12,
        map_channels=(5, 9, 6),
        num_samples=4,
    )
    maps = build_bmn(config)(torch.randn(3, 10, 8))
    assert maps.start.shape == maps.end.shape == (3, 10)
    assert maps.classification.shape == maps.regression.shape == (3, 10, 10)
    invalid = ~valid_cells(10)
    for cells in (maps.classification, maps.regression):
        assert (cells[:, invalid] == 0).all()
        assert ((cells[:, ~invalid] > 0) & (cells[:, ~invalid] < 1)).all()


def test_videos_of_a_batch_do_not_touch() -> None:
    model = build_bmn(SMALL).double()
    features = torch.randn(3, 10, 8, dtype=torch.float64)
    together, alone = model(features), model(features[1:2])
    torch.testing.assert_close(together.regression[1:2], alone.regression, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.start[1:2], alone.start, rtol=0, atol=1e-12)


def test_same_seed_gives_the_same_bits() -> None:
    gradients = []
    for _ in range(2):
        torch.manual_seed(5)
        model = build_bmn(SMALL)
        maps = model(torch.randn(2, 10, 8))
        (maps.start.sum() + maps.end.sum() + maps.classification.sum()).backward()
        gradients.append(model.base[0].weight.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_training_after_inference_mode() -> None:
    """Tables cached while predicting could not be used for gradients afterwards."""
    config = BmnConfig(
        feature_dim=8, num_bins=19, base_channels=12, map_channels=(5, 9, 6), num_samples=4
    )
    features = torch.randn(1, 19, 8)
    with torch.inference_mode():
        build_bmn(config)(features)
    build_bmn(config)(features).regression.sum().backward()


MAPS = ("start", "end", "classification", "regression")


@pytest.mark.parametrize("num_lstm_layers", [0, 1])
def test_bf16_autocast_is_near_fp32_and_tells_high_confidences_apart(num_lstm_layers: int) -> None:
    """In bf16, sigmoids of 7 and more were one number each, without a gradient."""
    torch.manual_seed(0)
    model = build_bmn(dataclasses.replace(SMALL, num_lstm_layers=num_lstm_layers))
    for head in (model.start, model.end, model.windows):
        torch.nn.init.constant_(head.output.bias, 7.0)
    features = torch.randn(2, 10, 8)
    expected = model(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model(features)
    for name in MAPS:
        got = getattr(maps, name)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, getattr(expected, name), rtol=0, atol=1e-4)
    sum(getattr(maps, name).sum() for name in MAPS).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = build_bmn(SMALL)
    features = torch.randn(2, 10, 8)
    expected = model(features)
    maps = model.to(dtype)(features.to(dtype))
    for name in MAPS:
        got = getattr(maps, name)
        assert got.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(got.float(), getattr(expected, name), rtol=0, atol=0.02)


def test_compiles_to_one_graph() -> None:
    """Maps and gradients as without compiling. A bi-LSTM breaks the graph in two."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = build_bmn(SMALL)
    features = torch.randn(2, 10, 8)
    results = []
    for network in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        maps = network(features)
        sum(getattr(maps, name).square().sum() for name in MAPS).backward()
        gradients = [weight.grad for weight in model.parameters()]
        model.zero_grad(set_to_none=True)
        results.append([*(getattr(maps, name).detach() for name in MAPS), *gradients])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


def test_tables_made_under_other_modes_serve_afterwards() -> None:
    """What is kept between networks was once a tensor of the mode in which it was made."""
    config = dataclasses.replace(SMALL, num_bins=13)
    with FakeTensorMode():
        build_bmn(config)
    with torch.device("meta"):
        build_bmn(config)
    assert build_bmn(config)(torch.randn(1, 13, 8)).regression.isfinite().all()


def test_published_size() -> None:
    """The default network is the peers' BMN: its parameter count, worked out from its sizes."""
    base = (576 * 3 * 256 + 256) + (64 * 3 * 256 + 256)
    boundaries = 2 * ((64 * 3 * 256 + 256) + (256 + 1))
    windows = (256 * 3 * 128 + 128) + (128 * 32 * 512 + 512)
    on_map = (512 * 128 + 128) + 2 * (128 * 9 * 128 + 128) + (128 * 2 + 2)
    expected = base + boundaries + windows + on_map
    model = build_bmn(BmnConfig(num_bins=8))
    assert sum(p.numel() for p in model.parameters()) == expected


def test_refuses_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="feature_dim must be a multiple of groups = 4, got 6"):
        BmnConfig(feature_dim=6)
    with pytest.raises(ValueError, match="num_lstm_layers must be at least 0, got -1"):
        BmnConfig(num_lstm_layers=-1)
    with pytest.raises(ValueError, match="num_bins must be at least 2, got 0"):
        BmnConfig(num_bins=0)
    with pytest.raises(ValueError, match="map_channels must be three"):
        BmnConfig(map_channels=(1, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[B, 10, F\].*got shape \(1, 9, 8\)"):
        build_bmn(SMALL)(torch.zeros(1, 9, 8))
