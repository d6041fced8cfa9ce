"""The documentation site from the method files, the catalogue and the tests; MkDocs does the rest."""
