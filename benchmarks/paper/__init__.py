"""The protocol of the SepPrune paper: a row of its Table 2 in one command, and a scaled-down form on the corpus."""
