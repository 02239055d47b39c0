"""MACs, parameters and memory of any choice of channels, in closed form."""
