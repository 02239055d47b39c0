"""Which channels are coupled: labels, couplings, size uses, groups."""
