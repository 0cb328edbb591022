"""The JSON documents of the REST API, one module for each part of the house that answers them."""
