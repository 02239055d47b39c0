"""Random networks that once failed, as hypothesis printed them, each with what was wrong."""

from types import MappingProxyType

from tests.properties.networks import NetworkSpec

REGRESSIONS: MappingProxyType[str, NetworkSpec] = MappingProxyType({})
