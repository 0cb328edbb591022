"""Tables of the metadata database. Importing this package registers none: import the module you use."""
