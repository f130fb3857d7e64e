"""The sandbox for untrusted programs. Standard library only: the fork server loads this package without smallwit."""
