"""Better training parameters: what to try next, what is not worth finishing, a trial in a process
of its own."""

from kreislauf.search.sampler import best, propose, should_prune, space

__all__ = ["best", "propose", "should_prune", "space"]
