"""Tests, named as sentences; their folders mirror the packages."""
