"""What a user is told of videos that PyAV decodes although NVDEC was asked for."""

from collections import Counter

from rich.markup import escape

from tfn_jobs.console import say

NO_ENGINE = "no NVDEC on the machine: "
"""How a reason begins that holds for every video of an actor."""
MAX_LINES = 5


class NvdecReport:
    """Says at once that NVDEC is not to be had, and in the end how many videos PyAV decoded."""

    def __init__(self, fallbacks: Counter[str]) -> None:
        """`fallbacks`, which others go on counting: videos that PyAV decoded, by why."""
        self._fallbacks = fallbacks
        self._has_warned = False

    def warn(self) -> None:
        """Warn once, as soon as it is known: without NVDEC a run is far slower than expected."""
        if self._has_warned:
            return
        for why in self._fallbacks:
            if why.startswith(NO_ENGINE):
                say(f"[yellow]extract: decoder is nvdec, but PyAV decodes: {escape(why)}[/]")
                self._has_warned = True
                return

    def sum_up(self) -> None:
        """A line for each of the most frequent reasons, and one for all others."""
        ordered = self._fallbacks.most_common()
        for why, count in ordered[:MAX_LINES]:
            say(f"extract: PyAV decoded {_videos(count)} instead of NVDEC: {escape(why)}")
        if rest := ordered[MAX_LINES:]:
            total = sum(count for _, count in rest)
            say(
                f"extract: PyAV decoded {_videos(total)} instead of NVDEC for {len(rest)} other "
                f"reasons, such as: {escape(rest[0][0])}"
            )


def _videos(count: int) -> str:
    return "1 video" if count == 1 else f"{count} videos"
