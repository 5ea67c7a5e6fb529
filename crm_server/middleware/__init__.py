"""Pure ASGI, one idea a file: a class with `__init__(app, options)` and `__call__`."""
