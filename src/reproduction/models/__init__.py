"""The networks that the experiments train."""

PENULTIMATE = 128
"""Neurons of the ResNet18's fully connected penultimate layer (Appendix B.2)."""
