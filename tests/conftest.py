"""What holds for every test: how many random networks are tried, and what none hands on to the next.

``test`` is the default profile, ``make fuzz`` takes the one of that name.
"""

import torch
from hypothesis import HealthCheck, settings

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "test", max_examples=150, deadline=None, derandomize=True, print_blob=True, suppress_health_check=SLOW
)
settings.register_profile("fuzz", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile("test")


def pytest_runtest_teardown() -> None:
    """Trainings let the processor take the tiniest numbers for zero, in the whole process."""
    torch.set_flush_denormal(False)
