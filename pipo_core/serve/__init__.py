"""The OpenAI-compatible server: the bodies it accepts, and the engine requests that they become."""
