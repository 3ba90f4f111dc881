"""Refine Network: a three-stage cascade that moves proposals and predicts their IoU.

Paper section 1.3. `model` is the network, `targets` and `loss` train it, `decode` reads its
output; `offsets` is the one encoding of a move that training and inference share, and `output`
what the network gives.
"""
