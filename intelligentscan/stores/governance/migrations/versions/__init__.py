"""One file per revision of the governance schema."""
