"""pipo: Pair-In, Pair-Out language models. Floors and rooms are drawn in docs/architecture.md."""

__version__ = "0.1.0"
