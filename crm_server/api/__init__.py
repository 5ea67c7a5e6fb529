"""HTTP only: each handler parses, calls one function of the domain, and renders."""
