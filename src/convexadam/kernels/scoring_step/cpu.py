"""A step of Fisher scoring on the CPU: a few small matrices, which torch multiplies."""

from convexadam.kernels.scoring_step.reference import judge_step, propose_step

__all__ = ["judge_step", "propose_step"]
