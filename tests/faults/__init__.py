"""Faults at chosen points: kills, wires, disks and clocks."""
