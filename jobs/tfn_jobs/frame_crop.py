"""The part of a frame that the backbone sees, the same in fine-tuning and in extraction."""

import numpy as np
from numpy.typing import NDArray


def center_square(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The central square of frames [n, H, W, 3]."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frames[:, top : top + side, left : left + side]
