"""prunegraph beside other pruning libraries, on the same networks, in the same run."""
