"""Learned fusion of the members of each stage, and of classes with proposals.

Weights are fitted on videos that the members were not trained on. Equal weights are the mean.
"""
