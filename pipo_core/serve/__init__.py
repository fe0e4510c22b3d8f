"""The OpenAI-compatible server: what requests may say, and what they become."""
