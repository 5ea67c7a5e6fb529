"""The website's side over HTTP."""
