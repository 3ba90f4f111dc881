"""Video classifiers, on stored features or on frames: which action a video shows."""
