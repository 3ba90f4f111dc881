"""The models, losses, fusion rules and metrics of the Temporal Fusion Network, on torch and numpy.

Shapes are written with these letters everywhere:

    B  videos or clips in a batch
    T  snippets: the clips of one video, in order
    F  feature channels
    C  channels inside a network
    D  bins of a boundary map (as many durations as starts)
    N  proposals or segments of one video; samples of a window in a boundary-matching layer
    O  output channels of a layer
    P  windows of a map, D(D+1)/2; or positions
    G  ground-truth segments
    K  classes
    M  members of an ensemble
    L  frames of a clip
    H  W  pixels
    V  videos
"""
