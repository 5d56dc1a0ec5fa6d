"""Mirror symmetries of loss functions, the constraints they induce, and a reproduction of the paper about them.

Liu Ziyin, "Symmetry Induces Structure and Constraint of Learning", ICML 2024.
"""

__version__ = "0.1.0"
