"""Files from the Hugging Face hub and from the package itself."""
