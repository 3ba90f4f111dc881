"""The Refine Network: Table 2 as settings, padding that counts for nothing, precision."""

from dataclasses import replace

import pytest
import torch

from tests.tfn_models.refine.toy_videos import (
    FULL,
    SMALL,
    TABLE_2,
    Videos,
    loss_of,
    make_videos,
    randomize,
    run,
)
from tfn_models.refine.model import (
    RefineConfig,
    RefineModule,
    RefineNetwork,
    build_refine,
    fit_segments,
)
from tfn_models.refine.output import RefineOutput

LENGTH, COUNT = 17, 5
"""Clips and proposals of the video that is looked at; its neighbours have more."""


@pytest.mark.parametrize("row", TABLE_2)
def test_every_row_of_table_2_gets_gradients_everywhere(row: str) -> None:
    config = TABLE_2[row]
    model = randomize(build_refine(config)).train()
    videos = make_videos(2, seed=0)
    loss_of(model, videos, torch.Generator().manual_seed(0)).total.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        # The key's bias moves all similarities of a query alike, so the softmax ignores it.
        assert weight.grad.abs().sum() > 0 or name.endswith("nonlocal_block.key.bias"), name
    output = run(model, videos)
    assert (output.action_score is not None) == config.use_action_score
    assert [stage.positive_iou for stage in output.stages] == [0.5, 0.6, 0.7]


def test_each_switch_adds_its_module_only() -> None:
    names = [set(build_refine(config).state_dict()) for config in TABLE_2.values()]
    parts = ["lstm", "nonlocal_block", "action_score", "transformer"]
    for before, after, part in zip(names, names[1:], parts, strict=False):
        assert before < after
        assert all(part in name for name in after - before)


def test_a_new_network_leaves_proposals_where_they_are() -> None:
    torch.manual_seed(0)
    videos = make_videos(2, seed=0)
    output = run(build_refine(FULL).eval(), videos)
    lengths = videos.mask.sum(1)
    expected = fit_segments(videos.proposals, lengths=lengths)
    torch.testing.assert_close(output.stages[-1].segments, expected)


def test_stages_chain_and_segments_stay_inside_the_video() -> None:
    torch.manual_seed(0)
    model = randomize(build_refine(FULL))
    videos = make_videos(3, seed=2)
    output = run(model, videos)
    for before, after in zip(output.stages, output.stages[1:], strict=False):
        assert torch.equal(before.segments, after.input_segments)
        assert not torch.equal(before.segments, after.segments)
    for stage in output.stages:
        assert not stage.segments.requires_grad
        assert (stage.segments >= 0).all()
        assert (stage.segments <= videos.mask.sum(1)[:, None, None]).all()
        assert (stage.segments[..., 1] > stage.segments[..., 0]).all()


def test_bins_of_a_stage_are_context_proposal_context() -> None:
    """Features that tell their position read back the centre of each bin."""
    config = replace(SMALL, start_bins=1, action_bins=2, end_bins=3, context_ratio=0.75)
    positions = (torch.arange(30.0) + 0.5)[None, :, None]
    bins = RefineModule(config)._sample(
        positions, torch.tensor([[[10.0, 14.0]]]), lengths=torch.tensor([30])
    )
    expected = [8.5, 11.0, 13.0, 14.5, 15.5, 16.5]
    torch.testing.assert_close(bins.flatten(), torch.tensor(expected))


def test_fit_segments_by_hand() -> None:
    segments = torch.tensor([[[-3.0, 2.0], [8.0, 20.0], [4.0, 4.0], [30.0, 40.0], [6.0, 5.0]]])
    fitted = fit_segments(segments, lengths=torch.tensor([10]))
    expected = [[0.0, 2.0], [8.0, 10.0], [4.0, 4.1], [9.9, 10.0], [6.0, 6.1]]
    torch.testing.assert_close(fitted[0], torch.tensor(expected))


def cut_short(videos: Videos, *, video: int) -> Videos:
    """One of the videos becomes short, with NaN in all of its padding."""
    cut = replace(
        videos,
        features=videos.features.clone(),
        mask=videos.mask.clone(),
        proposals=videos.proposals.clone(),
        proposal_mask=videos.proposal_mask.clone(),
    )
    cut.mask[video, LENGTH:] = False
    cut.features[video, LENGTH:] = torch.nan
    cut.proposal_mask[video, COUNT:] = False
    cut.proposals[video, COUNT:] = torch.nan
    return cut


def numbers_of(output: RefineOutput, *, video: int) -> list[torch.Tensor]:
    """All that the network says about the first proposals and clips of a video."""
    numbers = []
    for stage in output.stages:
        for value in (stage.input_segments, stage.segments, stage.iou, stage.offsets):
            numbers.append(value[video, :COUNT])
    if output.action_logits is not None:
        numbers.append(output.action_logits[video, :LENGTH])
    return numbers


@pytest.mark.parametrize("row", TABLE_2)
def test_what_the_neighbours_are_changes_no_bit(row: str) -> None:
    """Other features, lengths and proposals beside it, in a batch of the same shape."""
    torch.manual_seed(0)
    model = randomize(build_refine(TABLE_2[row]))
    videos = cut_short(make_videos(3, seed=1), video=1)
    before = numbers_of(run(model, videos), video=1)
    others = make_videos(3, seed=2)
    for name in ("features", "mask", "proposals", "proposal_mask"):
        getattr(others, name)[1] = getattr(videos, name)[1]
    others.mask[0, 3:] = False
    others.proposal_mask[2, 1:] = False
    after = numbers_of(run(model, others), video=1)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)
        assert bool(one.isfinite().all())


@pytest.mark.parametrize("row", TABLE_2)
def test_alone_without_padding_gives_the_same(row: str) -> None:
    """To 1e-10 in fp64; not to the bit, for products of other sizes are summed in another order."""
    torch.manual_seed(0)
    model = randomize(build_refine(TABLE_2[row])).double()
    videos = cut_short(make_videos(3, seed=1), video=1)
    videos = replace(videos, features=videos.features.double())
    alone = replace(
        videos,
        features=videos.features[1:2, :LENGTH],
        mask=videos.mask[1:2, :LENGTH],
        proposals=videos.proposals[1:2, :COUNT],
        proposal_mask=videos.proposal_mask[1:2, :COUNT],
    )
    together = numbers_of(run(model, videos), video=1)
    for one, other in zip(together, numbers_of(run(model, alone), video=0), strict=True):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("row", TABLE_2)
def test_the_padding_gets_no_gradient(row: str) -> None:
    torch.manual_seed(0)
    model = randomize(build_refine(TABLE_2[row]))
    videos = cut_short(make_videos(2, seed=1), video=1)
    videos.features.nan_to_num_(0.0).requires_grad_()
    output = run(model, videos)
    total = sum((s.iou[0].sum() + s.offsets[0].sum() for s in output.stages), torch.tensor(0.0))
    total.backward()
    assert videos.features.grad is not None
    assert bool((videos.features.grad[1] == 0).all()), "a neighbour reaches another video"
    assert bool((videos.features.grad[0][~videos.mask[0]] == 0).all())
    assert float(videos.features.grad[0].abs().sum()) > 0


@pytest.mark.parametrize("row", TABLE_2)
def test_the_base_runs_once_a_video_however_many_proposals(row: str) -> None:
    """TCANet runs it once for each hundred proposals."""
    model = build_refine(TABLE_2[row])
    seen: list[tuple[str, int]] = []
    parts = [*model.base, *(p for p in (model.action_score, model.transformer) if p is not None)]
    for part in parts:
        part.register_forward_hook(
            lambda module, inputs, _: seen.append((type(module).__name__, len(inputs[0])))
        )
    run(model, make_videos(2, seed=0, num_proposals=200))
    assert seen == [(type(part).__name__, 2) for part in parts]


def built(config: RefineConfig) -> RefineNetwork:
    torch.manual_seed(0)
    return randomize(build_refine(config))


def assert_near(output: RefineOutput, reference: RefineOutput, *, tolerance: float) -> None:
    for ours, theirs in zip(output.stages, reference.stages, strict=True):
        for name in ("input_segments", "segments", "iou"):
            value = getattr(ours, name)
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, getattr(theirs, name), rtol=0, atol=tolerance)
    assert (output.action_logits is None) == (reference.action_logits is None)
    if output.action_logits is not None:
        assert bool(output.action_logits.isfinite().all())


@pytest.mark.parametrize("row", TABLE_2)
def test_bf16_autocast_stays_near_fp32(row: str) -> None:
    """Within 0.02 clips and 0.02 of IoU, where proposals move by some 0.1 clips."""
    model, videos = built(TABLE_2[row]), make_videos(3, seed=0)
    reference = run(model, videos)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(model, videos)
        loss = loss_of(model, videos, torch.Generator().manual_seed(0))
    assert_near(output, reference, tolerance=0.02)
    assert loss.total.dtype == torch.float32
    exact = loss_of(model, videos, torch.Generator().manual_seed(0))
    assert loss.total.item() == pytest.approx(exact.total.item(), rel=0.02)
    loss.total.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name


ONE_STAGE = {name: replace(config, stage_ious=(0.5,)) for name, config in TABLE_2.items()}
"""Tracing takes its time, and the three stages are one code."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [ONE_STAGE["base"], replace(FULL, use_lstm=False)], ids=["base", "all but the LSTM"]
)
def test_compiles_to_one_graph_without_an_lstm(config: RefineConfig) -> None:
    torch._dynamo.reset()
    model, videos = built(config), make_videos(2, seed=0)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    output = run(compiled, videos)
    assert_near(output, run(model, videos), tolerance=1e-6)
    sum(stage.iou.sum() + stage.offsets.sum() for stage in output.stages).backward()
    assert all(weight.grad is not None for weight in model.base.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("row", ["+1", "+2", "+3", "+4"])
def test_compiles_with_the_lstm_as_the_only_break(row: str) -> None:
    """Torch's tracer does not support `nn.LSTM` (its setting allow_rnn is off): it leaves the graph
    there, and for no other reason.
    """
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, videos = built(ONE_STAGE[row]), make_videos(2, seed=0)
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        output = run(torch.compile(model, backend="aot_eager"), videos)
    assert_near(output, run(model, videos), tolerance=1e-6)
    reasons = torch._dynamo.utils.counters["graph_break"]
    assert reasons
    assert all("LSTM" in reason for reason in reasons), list(reasons)


@pytest.mark.parametrize(
    "change",
    [
        {"base_channels": 0},
        {"action_bins": 0},
        {"context_ratio": 0.0},
        {"stage_ious": ()},
        {"stage_ious": (0.5, 1.5)},
    ],
)
def test_refuses_config(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(SMALL, **change)


@pytest.mark.parametrize("case", ["proposals", "proposal_mask", "clip"])
def test_refuses_inputs(case: str) -> None:
    videos = make_videos(2, seed=0)
    wrong = {
        "proposals": replace(videos, proposals=videos.proposals[:1]),
        "proposal_mask": replace(videos, proposal_mask=videos.proposal_mask[:, 1:]),
        "clip": replace(videos, mask=torch.zeros_like(videos.mask)),
    }
    with pytest.raises(ValueError, match=case):
        run(build_refine(SMALL), wrong[case])
