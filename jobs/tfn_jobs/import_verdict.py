"""Whether imported features are what they were declared to be, and the words for what is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tfn_jobs.import_spec import ImportSpec
from tfn_platform.errors import DataError
from tfn_platform.foreign_features.lengths import explain_lengths
from tfn_platform.tables import QuarantineReason

NUM_SHOWN = 10


@dataclass
class Findings:
    """What was seen of each video so far.

    Attributes:
        durations: seconds of the videos that are expected, None where they are not known.
        num_clips: of the videos that were read.
        damaged: what is wrong with those that cannot be.
    """

    durations: Mapping[str, float | None]
    num_clips: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def known(self) -> list[str]:
        """The videos whose length can be checked."""
        return [video for video in self.num_clips if self.durations.get(video) is not None]


def fits(spec: ImportSpec, *, num_clips: int, duration: float | None) -> bool:
    """Whether a video has as many clips as its duration allows; one of unknown duration does."""
    if duration is None:
        return True
    return bool(spec.rule.fits(np.array([num_clips]), np.array([duration]))[0])


def misfits(spec: ImportSpec, findings: Findings) -> dict[str, str]:
    """The videos of wrong length and what is wrong, the worst first."""
    names, clips, seconds = _columns(findings)
    if not names:
        return {}
    stride = float(Fraction(spec.stride_seconds))
    off = spec.rule.excess_clips(clips, seconds) * stride
    wrong = np.flatnonzero(~spec.rule.fits(clips, seconds))
    worst = wrong[np.argsort(-np.abs(off[wrong]), kind="stable")]
    return {
        names[i]: f"{clips[i]} clips of {stride:.4g} s, video {seconds[i]:.2f} s: {off[i]:+.2f} s"
        for i in worst
    }


def check_lengths(spec: ImportSpec, findings: Findings, *, looked_at: str) -> None:
    """Refuse features whose lengths go with another stride, or of which most are wrong.

    Args:
        spec: what was declared.
        findings: of some of the videos, or of all.
        looked_at: how many these are, for the message.

    Raises:
        DataError: lists the ten worst videos and, where one explains all, the stride.
    """
    names, clips, seconds = _columns(findings)
    if not names:
        return
    wrong = misfits(spec, findings)
    reason = explain_lengths(clips, seconds, rule=spec.rule, frame_rate=Fraction(spec.frame_rate))
    if reason is None and len(wrong) <= len(names) / 2:
        return
    lines = [
        f"{spec.source}: features and durations contradict stride_seconds {spec.stride_seconds} "
        f"({len(wrong)} of {looked_at} are off by more than the tolerance)"
    ]
    if reason:
        lines.append(f"  {reason}")
    raise DataError("\n".join([*lines, *_worst(spec, findings)]))


def check_all(spec: ImportSpec, findings: Findings, *, missing: Sequence[str]) -> dict[str, str]:
    """The verdict over all videos: raise, or say which are left out and why.

    Returns:
        Video -> reason of quarantine.

    Raises:
        DataError: features are damaged, their lengths go with another stride, or more videos are
            missing or of wrong length than `max_refused_share` allows.
    """
    num_expected = len(findings.num_clips) + len(findings.damaged) + len(missing)
    if findings.damaged:
        shown = [f"  {name}: {text}" for name, text in list(findings.damaged.items())[:NUM_SHOWN]]
        raise DataError(
            f"{spec.source}: the features of {len(findings.damaged)} of {num_expected} videos "
            "cannot be used; mend them, or name the videos under `leave_out`:\n" + "\n".join(shown)
        )
    check_lengths(spec, findings, looked_at=f"{len(findings.known())} videos")
    wrong = misfits(spec, findings)
    refused = len(wrong) + len(missing)
    if refused > spec.max_refused_share * num_expected:
        lines = [
            f"{spec.source}: {refused} of {num_expected} videos cannot be imported: {len(missing)} "
            f"have no features, {len(wrong)} are off by more than the tolerance; "
            f"max_refused_share is {spec.max_refused_share:g}, and `leave_out` or `subsets` name "
            "what is not wanted"
        ]
        if missing:
            lines.append(f"  without features: {', '.join(missing[:NUM_SHOWN])}")
        raise DataError("\n".join([*lines, *(_worst(spec, findings) if wrong else [])]))
    return {
        **{name: str(QuarantineReason.MISSING_FILE) for name in missing},
        **{name: str(QuarantineReason.DURATION_MISMATCH) for name in wrong},
    }


def _columns(
    findings: Findings,
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    names = findings.known()
    clips = np.array([findings.num_clips[name] for name in names], np.int64)
    return names, clips, np.array([findings.durations[name] for name in names], np.float64)


def _worst(spec: ImportSpec, findings: Findings) -> list[str]:
    """A table of the ten videos that are off most."""
    names, clips, seconds = _columns(findings)
    stride = float(Fraction(spec.stride_seconds))
    excess = spec.rule.excess_clips(clips, seconds)
    order = np.argsort(-np.abs(excess), kind="stable")[:NUM_SHOWN]
    width = max(len("video"), *(len(names[i]) for i in order))
    rows = [f"  {'video':<{width}}  {'clips':>6}  {'duration':>10}  {'s a clip':>8}  {'off':>9}"]
    for i in order:
        rows.append(
            f"  {names[i]:<{width}}  {clips[i]:>6}  {seconds[i]:>8.2f} s  "
            f"{seconds[i] / clips[i]:>8.4f}  {excess[i] * stride:>+7.2f} s"
        )
    return rows
