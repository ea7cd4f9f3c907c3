"""Probes that explain what normalization does. Each is validated against a known result in tests/study/probes."""
