"""Video classifiers on stored features: which action a video shows."""
