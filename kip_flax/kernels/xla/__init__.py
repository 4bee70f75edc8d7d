"""The kernel of a convolutional network in plain JAX, for any device."""
