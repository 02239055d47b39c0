"""How many random networks are tried: ``test`` is the default, ``make fuzz`` takes the profile of that name."""

from hypothesis import HealthCheck, settings

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "test", max_examples=150, deadline=None, derandomize=True, print_blob=True, suppress_health_check=SLOW
)
settings.register_profile("fuzz", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile("test")
