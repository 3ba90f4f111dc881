"""How much a device gets done: BMN training steps, and SlowFast-101 clips as a share of its peak.

For a GPU; on a CPU the same runs at small sizes only, to see that it runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.bmn_step import PRECISIONS, Precision, training_step
from tests.benchmarks.memory import extra_bytes
from tfn_models.backbones.frames import normalize_frames
from tfn_models.backbones.slowfast import SLOWFAST_R101, SLOWFAST_TINY, build_slowfast
from tfn_models.bmn.model import BmnConfig, build_bmn


@dataclass(frozen=True)
class Throughput:
    """One line of the second table."""

    name: str
    seconds: float
    """Of one call, median."""
    per_second: float
    unit: str
    peak_bytes: int | None = None
    """Beyond what is in use before."""
    tflops: float | None = None
    """Floating-point operations of the forward pass, 10^12 a second."""
    share_of_peak: float | None = None
    """`tflops` over what a large bf16 matrix product reaches on this device."""


def bmn_throughput(*, small: bool, device: torch.device, repeats: int) -> list[Throughput]:
    """Whole training steps of BMN D = 200 at batch 16 and 64, fp32 and bf16."""
    config = BmnConfig(feature_dim=8, num_bins=12, base_channels=8, map_channels=(6, 10, 4))
    config = config if small else BmnConfig(num_bins=200)
    rows = []
    for batch_size in (2,) if small else (16, 64):
        for precision in PRECISIONS:
            torch.manual_seed(0)
            model = build_bmn(config).to(device)
            step = training_step(
                model, config, batch_size=batch_size, device=device, precision=precision
            )
            peak_bytes = extra_bytes(step, device) if device.type == "cuda" else None
            seconds = median_seconds(step, device=device, repeats=repeats)
            name = f"BMN training step, D={config.num_bins}, batch {batch_size}, {precision}"
            videos = batch_size / seconds
            rows.append(Throughput(name, seconds, videos, "videos/s", peak_bytes=peak_bytes))
    return rows


def slowfast_throughput(*, small: bool, device: torch.device, repeats: int) -> list[Throughput]:
    """SlowFast-101 features of 32 x 256 x 256 clips, from uint8 frames on the device."""
    config = SLOWFAST_TINY if small else SLOWFAST_R101
    pixels, num_clips = (32, 2) if small else (256, 16)
    torch.manual_seed(0)
    model = build_slowfast(config).to(device).eval()
    frames = torch.randint(0, 256, (num_clips, 32, pixels, pixels, 3), dtype=torch.uint8)
    frames = frames.to(device)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.forward_features(normalize_frames(frames[:1]))
    peak = matmul_peak(size=256 if small else 8192, device=device, repeats=repeats)
    rows = [Throughput("bf16 matrix product, 10^12 FLOP", 1 / peak, peak, "TFLOP/s", tflops=peak)]
    ways: list[tuple[str, Precision, bool]] = [
        ("fp32", "fp32", False),
        ("bf16", "bf16", False),
        ("bf16, compiled", "bf16", True),
    ]
    for name, precision, compiled in ways if not small else ways[:2]:
        work = _extraction(
            torch.compile(model.forward_features) if compiled else model.forward_features,
            frames,
            precision,
        )
        seconds = median_seconds(work, device=device, repeats=repeats)
        clips = num_clips / seconds
        tflops = clips * counter.get_total_flops() / 1e12
        rows.append(
            Throughput(
                f"SlowFast, {num_clips} clips of 32x{pixels}x{pixels}, {name}",
                seconds,
                clips,
                "clips/s",
                tflops=tflops,
                share_of_peak=tflops / peak,
            )
        )
    return rows


def _extraction(
    features: Callable[[torch.Tensor], torch.Tensor], frames: torch.Tensor, precision: Precision
) -> Callable[[], torch.Tensor]:
    def work() -> torch.Tensor:
        bf16 = precision == "bf16"
        autocast = torch.autocast(frames.device.type, dtype=torch.bfloat16, enabled=bf16)
        with torch.inference_mode(), autocast:
            return features(normalize_frames(frames))

    return work


def matmul_peak(*, size: int, device: torch.device, repeats: int) -> float:
    """10^12 floating-point operations a second of a square bf16 matrix product."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds = median_seconds(lambda: a @ a, device=device, repeats=max(repeats, 20))
    return 2 * size**3 / seconds / 1e12


def median_seconds(work: Callable[[], object], *, device: torch.device, repeats: int) -> float:
    """Wall-clock seconds until the device is done, after two calls to warm up."""
    times = []
    for call in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        before = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if call >= 2:
            times.append(time.perf_counter() - before)
    return statistics.median(times)
