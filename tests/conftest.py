"""Settings for every test."""

from hypothesis import HealthCheck, settings

# How fast a machine makes an example says nothing about the code: a busy one would fail tests that are right.
settings.register_profile("hami", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hami")
