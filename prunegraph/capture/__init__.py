"""Records one forward pass of a network as a graph of ATen calls."""
