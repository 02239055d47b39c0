"""How well, and how fast, a network separates: metrics with confidence intervals, real-time factor, latency."""
