"""The npm package, installed as a site installs it, by Node against real servers."""
