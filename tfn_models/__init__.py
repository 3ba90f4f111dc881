"""The models, losses, fusion rules and metrics of the Temporal Fusion Network, on torch and numpy.

Shapes are written with these letters everywhere:

    B  videos or clips in a batch
    T  snippets: the clips of one video, in order
    F  feature channels
    C  channels inside a network
    D  bins of a boundary map (as many durations as starts)
    N  proposals or segments of one video
    G  ground-truth segments
    K  classes
    M  members of an ensemble
    L  frames of a clip
    H  W  pixels
    V  videos
"""
