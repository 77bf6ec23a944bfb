"""Images ready to learn from or to score."""

from loligo.data.cache import AllRejected, Dataset

__all__ = ["AllRejected", "Dataset"]
