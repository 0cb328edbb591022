"""The same work on other engines, each from its public package in an environment of its own."""
