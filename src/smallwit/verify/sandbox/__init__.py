"""Running programs nobody trusts. Standard library only: the fork server loads this package without smallwit."""
