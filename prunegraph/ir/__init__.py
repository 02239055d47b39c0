"""The frozen values that the stages pass on."""
