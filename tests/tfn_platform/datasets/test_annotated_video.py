import pytest

from tfn_platform.datasets.annotated_video import AnnotatedVideo, LabelledSegment


@pytest.mark.parametrize(
    ("label", "start", "end", "message"),
    [
        ("", 0.0, 1.0, "label"),
        ("run", 2.0, 1.0, "2.0..1.0"),
        ("run", float("nan"), 1.0, "finite"),
        ("run", 0.0, float("inf"), "finite"),
    ],
)
def test_wrong_segments_are_refused(label: str, start: float, end: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelledSegment(label, start, end)


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan")])
def test_wrong_durations_are_refused(duration: float) -> None:
    with pytest.raises(ValueError, match="duration_seconds"):
        AnnotatedVideo("v", "training", duration, ())


def test_an_unknown_duration_is_allowed() -> None:
    assert AnnotatedVideo("v", "training", None, ()).duration_seconds is None
