"""The benchmark behind ``python -m instep bench``: instep, its peers and the machine's limit."""
