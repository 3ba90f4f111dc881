"""Boundary-Matching Network: proposals from two boundary curves and two maps over all windows.

The files are those of every proposal family: model, targets, loss, decode; and the layer that
makes it fast, boundary_matching (with its table, sampling) and map_convolution.
"""
