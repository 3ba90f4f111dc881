"""Layers over time, shared by the model families: one layer a file."""
