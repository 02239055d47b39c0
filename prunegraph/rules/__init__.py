"""What each op does to channels: labels, masked form and cost, op family by op family."""
