"""Convolutions: JAX's, with faster values and gradients on CPU."""
