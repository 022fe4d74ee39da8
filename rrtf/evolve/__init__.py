"""Stage 01: harder problems from easier ones (paper, section 3.1; Evol-Instruct)."""

from rrtf.evolve.offline import *  # noqa
